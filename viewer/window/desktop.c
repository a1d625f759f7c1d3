/* The window system, through GLFW. */
#include "app.h"

#define GLFW_INCLUDE_NONE
#include <GLFW/glfw3.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct desktop {
    app *a;
    GLFWwindow *window;
    int x, y, w, h;          /* before it was fullscreen */
    double ratio_x, ratio_y; /* pixels a unit of the window system */
    bool fixed_scale;        /* the user said how large */
};

/* ---------------------------------------------------------------- events */

static app *app_of(GLFWwindow *w) {
    return ((struct desktop *)glfwGetWindowUserPointer(w))->a;
}

static void on_move(GLFWwindow *w, double x, double y) {
    struct desktop *d = glfwGetWindowUserPointer(w);
    app_event(d->a, &(event){.kind = EVENT_MOVE, .x = x * d->ratio_x, .y = y * d->ratio_y});
}

static void on_button(GLFWwindow *w, int button, int action, int mods) {
    (void)mods;
    app_event(app_of(w), &(event){.kind = action == GLFW_PRESS ? EVENT_PRESS : EVENT_RELEASE, .button = button});
}

static void on_wheel(GLFWwindow *w, double dx, double dy) {
    (void)dx;
    app_event(app_of(w), &(event){.kind = EVENT_WHEEL, .y = dy});
}

static void on_character(GLFWwindow *w, unsigned code) {
    app_event(app_of(w), &(event){.kind = EVENT_CHARACTER, .code = code});
}

static void on_key(GLFWwindow *w, int k, int scancode, int action, int mods) {
    static const struct {
        int glfw;
        key key;
    } keys[] = {{GLFW_KEY_LEFT, KEY_LEFT}, {GLFW_KEY_RIGHT, KEY_RIGHT}, {GLFW_KEY_HOME, KEY_HOME},
        {GLFW_KEY_END, KEY_END}, {GLFW_KEY_TAB, KEY_TAB}, {GLFW_KEY_ESCAPE, KEY_ESCAPE}, {GLFW_KEY_ENTER, KEY_ENTER},
        {GLFW_KEY_KP_ENTER, KEY_ENTER}, {GLFW_KEY_BACKSPACE, KEY_BACKSPACE}, {GLFW_KEY_DELETE, KEY_DELETE}};
    (void)scancode;
    event e = {.kind = action == GLFW_RELEASE ? EVENT_KEY_UP : EVENT_KEY,
        .shift = mods & GLFW_MOD_SHIFT,
        .ctrl = mods & GLFW_MOD_CONTROL};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (keys[i].glfw == k)
            e.key = keys[i].key;
    if (e.key == KEY_NONE && (e.ctrl || action == GLFW_RELEASE) && k >= GLFW_KEY_A && k <= GLFW_KEY_Z) {
        e.key = KEY_LETTER;
        e.code = (unsigned)('a' + k - GLFW_KEY_A);
    }
    if (e.key != KEY_NONE)
        app_event(app_of(w), &e);
}

static void on_drop(GLFWwindow *w, int n, const char **paths) {
    for (int i = 0; i < n; i++)
        app_event(app_of(w), &(event){.kind = EVENT_DROP, .path = paths[i]});
}

static void learn_ratio(struct desktop *d) {
    int w, h, fw, fh;
    glfwGetWindowSize(d->window, &w, &h);
    glfwGetFramebufferSize(d->window, &fw, &fh);
    d->ratio_x = w > 0 ? (double)fw / w : 1;
    d->ratio_y = h > 0 ? (double)fh / h : 1;
}

static void on_size(GLFWwindow *w, int width, int height) {
    learn_ratio(glfwGetWindowUserPointer(w));
    app_event(app_of(w), &(event){.kind = EVENT_RESIZE, .x = width, .y = height});
}

static void on_scale(GLFWwindow *w, float x, float y) {
    struct desktop *d = glfwGetWindowUserPointer(w);
    (void)y;
    if (!d->fixed_scale && x > 0)
        app_event(d->a, &(event){.kind = EVENT_SCALE, .x = (double)x});
}

static void on_refresh(GLFWwindow *w) {
    app_touch(app_of(w));
}

static void on_close(GLFWwindow *w) {
    app_event(app_of(w), &(event){.kind = EVENT_CLOSE});
}

/* ---------------------------------------------------------------- life */

/* "WxH", "WxH+X+Y" */
static bool parse_geometry(const char *text, int *w, int *h, int *x, int *y, bool *placed) {
    int n = 0;
    *placed = sscanf(text, "%dx%d+%d+%d%n", w, h, x, y, &n) == 4 && !text[n];
    if (!*placed && !(sscanf(text, "%dx%d%n", w, h, &n) == 2 && !text[n]))
        return false;
    return *w >= 100 && *h >= 100 && *w <= 16384 && *h <= 16384;
}

static void make_window(struct desktop *d, const options *o) {
    bool placed = false;
    int x = 0, y = 0;
    GLFWmonitor *monitor = glfwGetPrimaryMonitor();
    int mx = 0, my = 0;
    d->w = 1280;
    d->h = 800;
    if (monitor) {
        glfwGetMonitorWorkarea(monitor, &x, &y, &mx, &my);
        d->w = mx > 0 && mx * 9 / 10 < d->w ? mx * 9 / 10 : d->w;
        d->h = my > 0 && my * 9 / 10 < d->h ? my * 9 / 10 : d->h;
    }
    if (o->geometry)
        parse_geometry(o->geometry, &d->w, &d->h, &x, &y, &placed);
    glfwWindowHint(GLFW_CLIENT_API, GLFW_NO_API);
    glfwWindowHint(GLFW_SCALE_TO_MONITOR, o->geometry ? GLFW_FALSE : GLFW_TRUE);
    glfwWindowHint(GLFW_VISIBLE, GLFW_FALSE);
    d->window = glfwCreateWindow(d->w, d->h, "Tessera", NULL, NULL);
    if (!d->window)
        return;
    if (placed)
        glfwSetWindowPos(d->window, x, y);
    glfwSetWindowSizeLimits(d->window, 320, 240, GLFW_DONT_CARE, GLFW_DONT_CARE);
    glfwSetWindowUserPointer(d->window, d);
    glfwSetCursorPosCallback(d->window, on_move);
    glfwSetMouseButtonCallback(d->window, on_button);
    glfwSetScrollCallback(d->window, on_wheel);
    glfwSetCharCallback(d->window, on_character);
    glfwSetKeyCallback(d->window, on_key);
    glfwSetDropCallback(d->window, on_drop);
    glfwSetFramebufferSizeCallback(d->window, on_size);
    glfwSetWindowContentScaleCallback(d->window, on_scale);
    glfwSetWindowRefreshCallback(d->window, on_refresh);
    glfwSetWindowCloseCallback(d->window, on_close);
    glfwShowWindow(d->window);
    learn_ratio(d);
}

int desktop_open(struct desktop **out, app *a, const options *o) {
    const char *why = NULL;
    *out = NULL;
    if (!glfwInit()) {
        glfwGetError(&why);
        return failure(TSR_ERR_UNSUPPORTED,
            "no display: %s; use tessera render to decode to a file, or view --offscreen", why ? why : "none is there");
    }
    struct desktop *d = calloc(1, sizeof *d);
    if (d)
        d->a = a;
    if (d && !glfwVulkanSupported())
        why = "its Vulkan loader is missing";
    else if (d)
        make_window(d, o);
    if (!d || !d->window) {
        if (!why)
            glfwGetError(&why);
        int status = failure(TSR_ERR_UNSUPPORTED, "no window: %s; use tessera render to decode to a file",
            why ? why : "the window system refused it");
        glfwTerminate();
        free(d);
        return status;
    }
    d->fixed_scale = o->scale > 0;
    *out = d;
    return EXIT_OK;
}

void desktop_close(struct desktop **desktop) {
    struct desktop *d = *desktop;
    *desktop = NULL;
    if (!d)
        return;
    glfwDestroyWindow(d->window);
    glfwTerminate();
    free(d);
}

void desktop_extensions(const char *const **names, int *count) {
    uint32_t n = 0;
    *names = (const char *const *)glfwGetRequiredInstanceExtensions(&n);
    *count = *names ? (int)n : 0;
}

VkSurfaceKHR desktop_surface(struct desktop *d, VkInstance instance) {
    VkSurfaceKHR surface = VK_NULL_HANDLE;
    return glfwCreateWindowSurface(instance, d->window, NULL, &surface) < 0 ? VK_NULL_HANDLE : surface;
}

void desktop_size(struct desktop *d, int *width, int *height, float *ui_scale) {
    float x = 1, y = 1;
    glfwGetFramebufferSize(d->window, width, height);
    glfwGetWindowContentScale(d->window, &x, &y);
    *ui_scale = x > 0.5f ? x : 1;
}

void desktop_wait(struct desktop *d, double seconds) {
    (void)d;
    if (seconds > 0)
        glfwWaitEventsTimeout(seconds);
    else
        glfwPollEvents();
}

void desktop_wake(void) {
    glfwPostEmptyEvent();
}

void desktop_fullscreen(struct desktop *d, bool on) {
    GLFWmonitor *monitor = glfwGetPrimaryMonitor();
    const GLFWvidmode *mode = monitor ? glfwGetVideoMode(monitor) : NULL;
    if (on && mode) {
        glfwGetWindowPos(d->window, &d->x, &d->y);
        glfwGetWindowSize(d->window, &d->w, &d->h);
        glfwSetWindowMonitor(d->window, monitor, 0, 0, mode->width, mode->height, mode->refreshRate);
    } else if (!on && d->w > 0) {
        glfwSetWindowMonitor(d->window, NULL, d->x, d->y, d->w, d->h, GLFW_DONT_CARE);
    }
}

void desktop_title(struct desktop *d, const char *title) {
    glfwSetWindowTitle(d->window, title);
}

void desktop_clipboard(struct desktop *d, const char *text) {
    glfwSetClipboardString(d->window, text);
}
