#version 450
layout(location = 0) in vec2 at;
layout(location = 1) in vec4 color;
layout(location = 0) out vec4 out_color;
layout(binding = 0) uniform sampler2D image;
layout(push_constant) uniform Push {
    vec2 size;
    float mask; // 1: the texture is a mask in red; 0: a picture
};

void main() {
    vec4 t = texture(image, at);
    out_color = mask != 0.0 ? vec4(color.rgb, color.a * t.r) : color * t;
}
