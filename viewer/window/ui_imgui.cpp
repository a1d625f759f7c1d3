/* The only C++ here: Dear ImGui behind ui.h. */
#include "ui.h"

#include <imgui.h>
#include <imgui_internal.h>

#include <cstdio>
#include <cstring>
#include <unistd.h>

static_assert(sizeof(ImDrawIdx) == sizeof(uint16_t), "ui_list says so");
static_assert(sizeof(ImDrawVert) == sizeof(ui_vertex), "ui_vertex is ImGui's");

static struct {
    ImFont *font[UI_FONTS];
    float scale;
    float font_size[UI_FONTS];
    ImDrawList *list;
    ui_item last;
    const char *(*get)(void *);
    void (*set)(void *, const char *);
    void *user;
    struct {
        char id[32];
        ui_rect r;
        int frame;
    } item[64];               /* seen last, for ui_find */
    bool down[3], pressed[3]; /* pressed: since the last frame, which must see it even where it was
                                 let go at once */
} ui;

/* ---------------------------------------------------------------- life */

static const char *clipboard_get(void *) {
    return ui.get ? ui.get(ui.user) : "";
}

static void clipboard_set(void *, const char *text) {
    if (ui.set)
        ui.set(ui.user, text);
}

extern "C" bool ui_open(void) {
    IMGUI_CHECKVERSION();
    if (!ImGui::CreateContext())
        return false;
    ImGuiIO &io = ImGui::GetIO();
    io.IniFilename = io.LogFilename = nullptr;
    io.BackendFlags |= ImGuiBackendFlags_RendererHasVtxOffset;
    io.GetClipboardTextFn = clipboard_get;
    io.SetClipboardTextFn = clipboard_set;
    io.ConfigInputTextCursorBlink = false; /* what does not move needs no drawing */
    static const int imgui_key[UI_KEYS] = {ImGuiKey_LeftArrow, ImGuiKey_RightArrow, ImGuiKey_Home, ImGuiKey_End,
        ImGuiKey_Delete, ImGuiKey_Backspace, ImGuiKey_Enter, ImGuiKey_Escape, ImGuiKey_A, ImGuiKey_C, ImGuiKey_V,
        ImGuiKey_X, ImGuiKey_Z};
    for (int i = 0; i < ImGuiKey_COUNT; i++)
        io.KeyMap[i] = -1;
    for (int i = 0; i < UI_KEYS; i++)
        io.KeyMap[imgui_key[i]] = i;
    return true;
}

extern "C" void ui_close(void) {
    if (ImGui::GetCurrentContext())
        ImGui::DestroyContext();
    memset(&ui, 0, sizeof ui);
}

/* ---------------------------------------------------------------- fonts */

static ImFont *load(ImFontAtlas *atlas, const char *const *paths, float size) {
    static const ImWchar ranges[] = {0x20, 0x17f, 0x2010, 0x2026, 0x2190, 0x2193, 0x2212, 0x2212, 0x221e, 0x221e, 0};
    ImFontConfig config;
    config.OversampleH = 2;
    config.PixelSnapH = true;
    for (; *paths; paths++)
        if (access(*paths, R_OK) == 0)
            return atlas->AddFontFromFileTTF(*paths, size, &config, ranges);
    config.SizePixels = size;
    return atlas->AddFontDefault(&config);
}

extern "C" ui_atlas ui_fonts(float scale) {
    static const char *const regular[] = {"/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
        "/usr/share/fonts/dejavu/DejaVuSans.ttf", "/usr/share/fonts/dejavu-sans-fonts/DejaVuSans.ttf",
        "/usr/share/fonts/TTF/DejaVuSans.ttf", "/usr/share/fonts/truetype/noto/NotoSans-Regular.ttf", nullptr};
    static const char *const bold[] = {"/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf",
        "/usr/share/fonts/dejavu/DejaVuSans-Bold.ttf", "/usr/share/fonts/dejavu-sans-fonts/DejaVuSans-Bold.ttf",
        "/usr/share/fonts/TTF/DejaVuSans-Bold.ttf", "/usr/share/fonts/truetype/noto/NotoSans-Bold.ttf", nullptr};
    static const float size[UI_FONTS] = {13, 13, 11, 22};
    ImGuiIO &io = ImGui::GetIO();
    io.Fonts->Clear();
    ui.scale = scale;
    for (int i = 0; i < UI_FONTS; i++) {
        ui.font_size[i] = (float)(int)(size[i] * scale + 0.5f);
        ui.font[i] = load(io.Fonts, i == UI_BOLD || i == UI_LARGE ? bold : regular, ui.font_size[i]);
    }
    ImGuiStyle style;
    style.WindowPadding = ImVec2(0, 0);
    style.WindowBorderSize = style.PopupBorderSize = style.FrameBorderSize = 0;
    style.WindowRounding = style.ScrollbarRounding = style.FrameRounding = 4;
    style.ItemSpacing = ImVec2(0, 0);
    style.FramePadding = ImVec2(8, 6);
    style.ScrollbarSize = 8;
    style.ScaleAllSizes(scale);
    style.WindowMinSize = ImVec2(1, 1);
    style.Colors[ImGuiCol_ScrollbarBg] = ImVec4(0, 0, 0, 0);
    style.Colors[ImGuiCol_ScrollbarGrab] = ImVec4(1, 1, 1, 0.12f);
    style.Colors[ImGuiCol_ScrollbarGrabHovered] = ImVec4(1, 1, 1, 0.2f);
    style.Colors[ImGuiCol_ScrollbarGrabActive] = ImVec4(1, 1, 1, 0.28f);
    style.Colors[ImGuiCol_FrameBg] = ImVec4(0.055f, 0.06f, 0.07f, 1);
    style.Colors[ImGuiCol_TextSelectedBg] = ImVec4(0.2f, 0.5f, 0.48f, 0.7f);
    ImGui::GetStyle() = style;
    ui_atlas a = {};
    unsigned char *alpha = nullptr;
    io.Fonts->GetTexDataAsAlpha8(&alpha, &a.width, &a.height);
    a.alpha = alpha;
    return a;
}

extern "C" void ui_atlas_texture(uint64_t texture) {
    ImGui::GetIO().Fonts->SetTexID((ImTextureID)texture);
}

/* ---------------------------------------------------------------- input */

extern "C" void ui_mouse(float x, float y) {
    ImGui::GetIO().MousePos = ImVec2(x, y);
}

extern "C" void ui_button_down(int button, bool down) {
    if (button < 0 || button >= 3)
        return;
    ui.down[button] = down;
    ui.pressed[button] |= down;
}

extern "C" void ui_wheel(float dy) {
    ImGui::GetIO().MouseWheel += dy;
}

extern "C" void ui_key_down(ui_key key, bool down, bool ctrl, bool shift) {
    ImGuiIO &io = ImGui::GetIO();
    io.KeysDown[key] = down;
    io.KeyCtrl = ctrl;
    io.KeyShift = shift;
}

extern "C" void ui_character(unsigned c) {
    ImGui::GetIO().AddInputCharacter(c);
}

extern "C" bool ui_typing(void) {
    return ImGui::GetIO().WantTextInput;
}

extern "C" void ui_clipboard(const char *(*get)(void *), void (*set)(void *, const char *), void *user) {
    ui.get = get;
    ui.set = set;
    ui.user = user;
}

/* ---------------------------------------------------------------- a frame */

extern "C" void ui_begin(int width, int height, double seconds) {
    ImGuiIO &io = ImGui::GetIO();
    io.DisplaySize = ImVec2((float)width, (float)height);
    io.DeltaTime = seconds > 1e-4 ? (float)seconds : 1e-4f;
    for (int i = 0; i < 3; i++) {
        io.MouseDown[i] = ui.down[i] || ui.pressed[i];
        ui.pressed[i] = false;
    }
    ImGui::NewFrame();
    ui.list = ImGui::GetBackgroundDrawList();
}

extern "C" int ui_end(void) {
    ImGui::Render();
    return ImGui::GetDrawData()->CmdListsCount;
}

extern "C" ui_list ui_get_list(int i) {
    const ImDrawList *l = ImGui::GetDrawData()->CmdLists[i];
    return ui_list{(const ui_vertex *)l->VtxBuffer.Data, l->IdxBuffer.Data, l->VtxBuffer.Size, l->IdxBuffer.Size,
        l->CmdBuffer.Size};
}

extern "C" ui_draw ui_get_draw(int list, int i) {
    const ImDrawCmd &c = ImGui::GetDrawData()->CmdLists[list]->CmdBuffer[i];
    return ui_draw{(uint64_t)c.TextureId, {c.ClipRect.x, c.ClipRect.y, c.ClipRect.z, c.ClipRect.w}, c.IdxOffset,
        c.ElemCount, (int32_t)c.VtxOffset};
}

/* ---------------------------------------------------------------- areas and items */

extern "C" void ui_area_begin(const char *id, ui_rect r, float padding, ui_color background, bool on_top) {
    ImGui::SetNextWindowPos(ImVec2(r.x, r.y));
    ImGui::SetNextWindowSize(ImVec2(r.w, r.h));
    ImGui::PushStyleColor(ImGuiCol_WindowBg, background);
    ImGui::PushStyleVar(ImGuiStyleVar_WindowPadding, ImVec2(padding, padding));
    ImGui::PushStyleVar(ImGuiStyleVar_WindowRounding, on_top && padding > 0 ? 8 * ui.scale : 0.0f);
    ImGui::Begin(id, nullptr,
        ImGuiWindowFlags_NoTitleBar | ImGuiWindowFlags_NoResize | ImGuiWindowFlags_NoMove |
            ImGuiWindowFlags_NoCollapse | ImGuiWindowFlags_NoFocusOnAppearing | ImGuiWindowFlags_NoSavedSettings |
            ImGuiWindowFlags_NoNav | (on_top ? 0 : ImGuiWindowFlags_NoBringToFrontOnFocus));
    if (on_top) /* without the focus, which would be taken from the item that is held */
        ImGui::BringWindowToDisplayFront(ImGui::GetCurrentWindow());
    ui.list = ImGui::GetWindowDrawList();
}

extern "C" void ui_area_end(void) {
    ImGui::End();
    ImGui::PopStyleVar(2);
    ImGui::PopStyleColor();
    ui.list = ImGui::GetBackgroundDrawList();
}

extern "C" float ui_left(void) {
    return ImGui::GetCursorScreenPos().x;
}

extern "C" float ui_top(void) {
    return ImGui::GetCursorScreenPos().y;
}

extern "C" float ui_width(void) {
    return ImGui::GetContentRegionAvail().x;
}

extern "C" void ui_space(float h) {
    ImGui::Dummy(ImVec2(0, h));
}

extern "C" void ui_same_line(float gap) {
    ImGui::SameLine(0, gap);
}

extern "C" void ui_move_to(float x, float y) {
    ImGui::SetCursorScreenPos(ImVec2(x, y));
}

static void note_item(const char *id, ui_rect r) {
    int frame = ImGui::GetFrameCount();
    for (auto &e : ui.item)
        if (!e.id[0] || e.frame < frame - 1 || strcmp(e.id, id) == 0) {
            snprintf(e.id, sizeof e.id, "%s", id);
            e.r = r;
            e.frame = frame;
            return;
        }
}

extern "C" ui_item ui_add(const char *id, float w, float h) {
    ImVec2 at = ImGui::GetCursorScreenPos(), mouse = ImGui::GetIO().MousePos;
    bool clicked = ImGui::InvisibleButton(id, ImVec2(w > 1 ? w : 1, h > 1 ? h : 1));
    ui_item i = {{at.x, at.y, w, h}, ImGui::IsItemHovered(), ImGui::IsItemActive(), clicked, ImGui::IsItemActivated(),
        ImGui::IsItemDeactivated(), mouse.x, mouse.y};
    ui.last = i;
    note_item(id, i.r);
    return i;
}

extern "C" bool ui_find(const char *id, ui_rect *r) {
    for (auto &e : ui.item)
        if (strcmp(e.id, id) == 0 && e.frame == ImGui::GetFrameCount()) {
            *r = e.r;
            return true;
        }
    return false;
}

extern "C" void ui_tooltip(const char *text) {
    const float delay = 0.45f;
    if (!ui.last.hovered || ui.last.active || GImGui->HoveredIdTimer < delay)
        return;
    ImGui::PushStyleVar(ImGuiStyleVar_WindowPadding, ImVec2(10 * ui.scale, 8 * ui.scale));
    ImGui::PushStyleColor(ImGuiCol_PopupBg, ImVec4(0.16f, 0.17f, 0.2f, 0.98f));
    ImGui::BeginTooltip();
    ImGui::PushTextWrapPos(300 * ui.scale);
    ImGui::PushFont(ui.font[UI_NORMAL]);
    ImGui::TextUnformatted(text);
    ImGui::PopFont();
    ImGui::PopTextWrapPos();
    ImGui::EndTooltip();
    ImGui::PopStyleColor();
    ImGui::PopStyleVar();
}

extern "C" bool ui_text_field(const char *id, char *text, int size, float w, bool focus) {
    ImGui::PushFont(ui.font[UI_NORMAL]);
    ImGui::PushItemWidth(w);
    if (focus)
        ImGui::SetKeyboardFocusHere();
    bool entered = ImGui::InputText(
        id, text, (size_t)size, ImGuiInputTextFlags_EnterReturnsTrue | ImGuiInputTextFlags_AutoSelectAll);
    ImGui::PopItemWidth();
    ImGui::PopFont();
    return entered;
}

/* ---------------------------------------------------------------- drawing */

extern "C" void ui_draw_on(ui_layer layer) {
    ui.list = layer == UI_BEHIND  ? ImGui::GetBackgroundDrawList()
              : layer == UI_FRONT ? ImGui::GetForegroundDrawList()
                                  : ImGui::GetWindowDrawList();
}

extern "C" void ui_clip(ui_rect r) {
    ui.list->PushClipRect(ImVec2(r.x, r.y), ImVec2(r.x + r.w, r.y + r.h), true);
}

extern "C" void ui_unclip(void) {
    ui.list->PopClipRect();
}

extern "C" void ui_fill(ui_rect r, ui_color c, float rounding) {
    ui.list->AddRectFilled(ImVec2(r.x, r.y), ImVec2(r.x + r.w, r.y + r.h), c, rounding);
}

extern "C" void ui_stroke(ui_rect r, ui_color c, float rounding, float thickness) {
    ui.list->AddRect(ImVec2(r.x, r.y), ImVec2(r.x + r.w, r.y + r.h), c, rounding, 0, thickness);
}

extern "C" void ui_line(float x0, float y0, float x1, float y1, ui_color c, float thickness) {
    ui.list->AddLine(ImVec2(x0, y0), ImVec2(x1, y1), c, thickness);
}

extern "C" void ui_triangle(float x0, float y0, float x1, float y1, float x2, float y2, ui_color c) {
    ui.list->AddTriangleFilled(ImVec2(x0, y0), ImVec2(x1, y1), ImVec2(x2, y2), c);
}

extern "C" void ui_disc(float x, float y, float radius, ui_color c) {
    ui.list->AddCircleFilled(ImVec2(x, y), radius, c);
}

extern "C" void ui_ring(float x, float y, float radius, ui_color c, float thickness) {
    ui.list->AddCircle(ImVec2(x, y), radius, c, 0, thickness);
}

extern "C" void ui_image(uint64_t texture, ui_rect r, float u1, float v1) {
    ui.list->AddImage(
        (ImTextureID)texture, ImVec2(r.x, r.y), ImVec2(r.x + r.w, r.y + r.h), ImVec2(0, 0), ImVec2(u1, v1));
}

extern "C" void ui_text(ui_font font, float x, float y, ui_color c, const char *text) {
    ui.list->AddText(ui.font[font], ui.font_size[font], ImVec2((float)(int)x, (float)(int)y), c, text);
}

extern "C" float ui_text_width(ui_font font, const char *text) {
    return ui.font[font]->CalcTextSizeA(ui.font_size[font], 1e6f, 0, text).x;
}

extern "C" float ui_text_height(ui_font font, const char *text, float w) {
    return ui.font[font]->CalcTextSizeA(ui.font_size[font], 1e6f, w, text).y;
}

extern "C" float ui_line_height(ui_font font) {
    return ui.font_size[font];
}

extern "C" void ui_paragraph(ui_font font, ui_color c, const char *text) {
    ImGui::PushFont(ui.font[font]);
    ImGui::PushStyleColor(ImGuiCol_Text, c);
    ImGui::PushTextWrapPos(0);
    ImGui::TextUnformatted(text);
    ImGui::PopTextWrapPos();
    ImGui::PopStyleColor();
    ImGui::PopFont();
}
