/* Help for people, from the tables. */
#include "options.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { WIDTH = 100, COLUMN = 30 };

/* Words of text from `column` on, broken before WIDTH, further lines indented to `column`. */
static void print_wrapped(const char *text, int column) {
    int at = column;
    for (const char *w = text; *w;) {
        int n = (int)strcspn(w, " ");
        if (at > column && at + 1 + n > WIDTH) {
            printf("\n%*s", column, "");
            at = column;
        }
        printf("%s%.*s", at > column ? " " : "", n, w);
        at += n + (at > column);
        w += n + (int)strspn(w + n, " ");
    }
    putchar('\n');
}

/* The meaning as a sentence of its own. */
static void print_sentence(const char *meaning) {
    char text[256];
    snprintf(text, sizeof text, "%c%s.", toupper((unsigned char)*meaning), meaning + 1);
    print_wrapped(text, 0);
}

static void print_row(const char *left, const char *right) {
    int n = printf("  %s", left);
    if (n + 2 > COLUMN) {
        putchar('\n');
        n = 0;
    }
    printf("%*s", COLUMN - n, "");
    print_wrapped(right, COLUMN);
}

static void print_option(const option *row) {
    char left[128], right[512], letter[8] = "    ";
    if (row->letter)
        snprintf(letter, sizeof letter, "-%c, ", row->letter);
    snprintf(
        left, sizeof left, "%s--%s%s%s", letter, row->name, row->values ? " " : "", row->values ? row->values : "");
    snprintf(right, sizeof right, "%s%s%s%s", row->meaning, row->fallback ? " [" : "",
        row->fallback ? row->fallback : "", row->fallback ? "]" : "");
    print_row(left, right);
}

void help_overview(void) {
    printf("Tessera %s: decodes the latents of the SeedVR2 video VAE under a memory budget.\n\n"
           "Usage: tessera COMMAND [ARGUMENT...] [OPTION...]\n"
           "       tessera COMMAND --help\n\nCommands:\n",
        tsr_version());
    for (int i = 0; i < COMMANDS; i++) {
        char left[64], right[256];
        snprintf(left, sizeof left, "%s %s", commands[i].name, commands[i].args);
        snprintf(right, sizeof right, "%s%s", commands[i].meaning, commands[i].run ? "" : " (not there yet)");
        print_row(left, right);
    }
    printf("\nOptions that most commands share:\n");
    for (int i = 0; i < option_count; i++)
        if (option_table[i].commands & (option_table[i].commands - 1))
            print_option(&option_table[i]);
    printf("      --version               what this is\n"
           "\nN is NxN. K, M, G and T are powers of 1024. Sizes are rounded down to multiples of 8.\n"
           "Exit status: 0 everything asked for was written, 1 it could not be done, 2 the command "
           "line was wrong,\n"
           "130 interrupted.\n");
}

void help_command(const command *c) {
    printf("Usage: tessera %s%s%s [OPTION...]\n\n", c->name, *c->args ? " " : "", c->args);
    print_sentence(c->meaning);
    if (c->more) {
        putchar('\n');
        print_wrapped(c->more, 0);
    }
    printf("\nOptions:\n");
    for (int i = 0; i < option_count; i++)
        if (option_table[i].commands & 1u << (c - commands))
            print_option(&option_table[i]);
    if (c->example)
        printf("\nExample:\n  %s\n", c->example);
}
