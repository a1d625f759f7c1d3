// The interface: triangles in pixels.
#version 450
layout(location = 0) in vec2 position;
layout(location = 1) in vec2 texture_at;
layout(location = 2) in vec4 color;
layout(location = 0) out vec2 out_at;
layout(location = 1) out vec4 out_color;
layout(push_constant) uniform Push {
    vec2 size; // of the screen, pixels
    float mask;
};

void main() {
    gl_Position = vec4(2.0 * position / size - 1.0, 0.0, 1.0);
    out_at = texture_at;
    out_color = color;
}
