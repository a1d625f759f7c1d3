/*
 * Dear ImGui, as much of it as the window uses, in C. Everything on screen is drawn through this:
 * items that are hovered and dragged, text, shapes, tooltips, one text field. Lengths are in
 * pixels, of the screen's upper left corner.
 */
#ifndef TSR_UI_H
#define TSR_UI_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ui_rect {
    float x, y, w, h;
} ui_rect;

typedef uint32_t ui_color; /* 0xAABBGGRR */
#define UI_RGB(hex) ((ui_color)(0xff000000u | ((hex)&0xff) << 16 | ((hex)&0xff00) | ((hex) >> 16 & 0xff)))
static inline ui_color ui_alpha(ui_color c, float a) {
    return (c & 0xffffffu) | (ui_color)((float)(c >> 24) * a + 0.5f) << 24;
}

/* ---------------------------------------------------------------- life */

bool ui_open(void);
void ui_close(void);

typedef enum ui_font { UI_NORMAL, UI_BOLD, UI_SMALL, UI_LARGE, UI_FONTS } ui_font;
typedef struct ui_atlas { /* white, with this alpha; valid until the next ui_fonts */
    const unsigned char *alpha;
    int width, height;
} ui_atlas;
/* Loads the fonts for lengths `scale` times as long as normal. Not within a frame. */
ui_atlas ui_fonts(float scale);
void ui_atlas_texture(uint64_t texture);

/* ---------------------------------------------------------------- input */

typedef enum ui_key { /* those a text field wants */
    UI_KEY_LEFT,
    UI_KEY_RIGHT,
    UI_KEY_HOME,
    UI_KEY_END,
    UI_KEY_DELETE,
    UI_KEY_BACKSPACE,
    UI_KEY_ENTER,
    UI_KEY_ESCAPE,
    UI_KEY_A,
    UI_KEY_C,
    UI_KEY_V,
    UI_KEY_X,
    UI_KEY_Z,
    UI_KEYS,
} ui_key;

void ui_mouse(float x, float y);
void ui_button_down(int button, bool down); /* 0: left */
void ui_wheel(float dy);
void ui_key_down(ui_key key, bool down, bool ctrl, bool shift);
void ui_character(unsigned c);
bool ui_typing(void); /* a text field has the keyboard */
/* The clipboard of text fields and of ui_copy. */
void ui_clipboard(const char *(*get)(void *user), void (*set)(void *user, const char *text), void *user);

/* ---------------------------------------------------------------- a frame */

typedef struct ui_vertex {
    float x, y, u, v;
    ui_color color;
} ui_vertex;

typedef struct ui_draw {
    uint64_t texture;
    float clip[4]; /* left, top, right, bottom */
    uint32_t first_index, indices;
    int32_t first_vertex;
} ui_draw;

typedef struct ui_list { /* one of several */
    const ui_vertex *vertex;
    const uint16_t *index;
    int vertices, indices, draws;
} ui_list;

void ui_begin(int width, int height, double seconds_since_last);
/* Ends the frame; returns how many lists there are to draw, in order. */
int ui_end(void);
ui_list ui_get_list(int i);
ui_draw ui_get_draw(int list, int i);

/* ---------------------------------------------------------------- areas and items */

/* An area of the screen that holds items, one below the other, and scrolls where they take more
 * height. */
void ui_area_begin(const char *id, ui_rect r, float padding, ui_color background, bool on_top);
void ui_area_end(void);
float ui_left(void); /* of what comes next */
float ui_top(void);
float ui_width(void); /* to the right edge */
void ui_space(float h);
void ui_same_line(float gap);
void ui_move_to(float x, float y); /* the next item's place */

typedef struct ui_item {
    ui_rect r;
    bool hovered, active; /* active: pressed and held */
    bool clicked;         /* released over it */
    bool pressed, released;
    float mouse_x, mouse_y;
} ui_item;
ui_item ui_add(const char *id, float w, float h);
/* Where an item of the frame drawn last is; false: it was not drawn. */
bool ui_find(const char *id, ui_rect *r);
/* The mouse is over the last item long enough, or it is asked for: a note appears, wrapped. */
void ui_tooltip(const char *text);
/* True when Enter was pressed. `focus`: it gets the keyboard. */
bool ui_text_field(const char *id, char *text, int size, float w, bool focus);

/* ---------------------------------------------------------------- drawing */

/* Where the next shapes go: behind all areas, in the area in hand, or in front of everything. */
typedef enum ui_layer { UI_BEHIND, UI_HERE, UI_FRONT } ui_layer;
void ui_draw_on(ui_layer layer);
void ui_clip(ui_rect r); /* until ui_unclip */
void ui_unclip(void);

void ui_fill(ui_rect r, ui_color c, float rounding);
void ui_stroke(ui_rect r, ui_color c, float rounding, float thickness);
void ui_line(float x0, float y0, float x1, float y1, ui_color c, float thickness);
void ui_triangle(float x0, float y0, float x1, float y1, float x2, float y2, ui_color c);
void ui_disc(float x, float y, float radius, ui_color c);
void ui_ring(float x, float y, float radius, ui_color c, float thickness);
void ui_image(uint64_t texture, ui_rect r, float u1, float v1); /* from 0,0 to u1,v1 of it */
void ui_text(ui_font font, float x, float y, ui_color c, const char *text);
/* Of the longest line, and all lines. */
float ui_text_width(ui_font font, const char *text);
float ui_text_height(ui_font font, const char *text, float w); /* wrapped to that width */
float ui_line_height(ui_font font);
/* Text as an item of the area, wrapped to its width. */
void ui_paragraph(ui_font font, ui_color c, const char *text);

#ifdef __cplusplus
}
#endif
#endif
