/* Colours, and the few kinds of control that the window is made of. */
#ifndef TSR_WIDGETS_H
#define TSR_WIDGETS_H

#include "app.h"

#define COLOR_STAGE UI_RGB(0x0c0d10)
#define COLOR_PANEL UI_RGB(0x15171b)
#define COLOR_BAR UI_RGB(0x121418)
#define COLOR_RAISED UI_RGB(0x23262d)
#define COLOR_HOVER UI_RGB(0x2c3038)
#define COLOR_LINE UI_RGB(0x262a31)
#define COLOR_TRACK UI_RGB(0x2b2f37)
#define COLOR_TEXT UI_RGB(0xdfe2e7)
#define COLOR_DIM UI_RGB(0x8d94a0)
#define COLOR_FAINT UI_RGB(0x5a606b)
#define COLOR_ACCENT UI_RGB(0x4fc3b5)
#define COLOR_ACCENT_DARK UI_RGB(0x1f4f4b)
#define COLOR_WARN UI_RGB(0xe5a34a)
#define COLOR_BAD UI_RGB(0xe56a6a)
#define COLOR_BAD_DARK UI_RGB(0x6e3038)

void widget_heading(app *a, const char *text);
/* Two texts on a line, left dim and right plain, in the width there is. */
void widget_fact(app *a, const char *name, const char *value);
/* Text in small type that ends in "..." where it is too wide. */
void widget_text_clipped(ui_font font, ui_rect r, ui_color c, const char *text, bool right);

/* A labelled slider over positions 0..count-1; those whose fit is FIT_NO are marked. True where it
 * moved or was let go; *position is where it stands, *resting that it was let go. */
bool widget_slider(app *a, const char *id, const char *label, const char *value, int count, int *position,
    bool *resting, fit (*fits)(app *a, const void *user, int position), const void *user, const char *tooltip);
/* A row of choices; `disabled` (may be NULL) says which cannot be taken. Returns the one clicked,
 * -1: none. */
int widget_choices(
    app *a, const char *id, const char *const *names, int count, int chosen, const bool *disabled, const char *tooltip);
/* True when clicked. `letter`: its key, shown dim; may be NULL. */
bool widget_button(
    app *a, const char *id, const char *label, const char *letter, float w, bool on, bool enabled, const char *tooltip);
void widget_progress(app *a, float w, double share, ui_color c);

#endif
