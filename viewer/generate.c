/* The man page and the shells' completions, from the tables; run at build time. */
#include "options.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* ---------------------------------------------------------------- man */

/* Minus signs that can be copied, nothing at a line's start that troff would take for a request. */
static void roff(const char *text) {
    if (*text == '.' || *text == '\'')
        fputs("\\&", stdout);
    for (; *text; text++)
        if (*text == '-')
            fputs("\\-", stdout);
        else if (*text == '\\')
            fputs("\\e", stdout);
        else
            putchar(*text);
}

/* The meaning as a sentence. */
static void roff_sentence(const char *meaning) {
    char first[2] = {(char)toupper((unsigned char)*meaning), 0};
    roff(first);
    roff(meaning + 1);
    fputs(".\n", stdout);
}

static void man_command(const command *c) {
    printf(".TP\n.B tessera %s", c->name);
    if (*c->args) {
        fputs(" \\fI", stdout);
        roff(c->args);
        fputs("\\fR", stdout);
    }
    putchar('\n');
    roff_sentence(c->meaning);
    if (c->more) {
        roff(c->more);
        putchar('\n');
    }
}

static void man_option(const option *row) {
    fputs(".TP\n\\fB", stdout);
    if (row->letter)
        printf("\\-%c\\fR, \\fB", row->letter);
    fputs("\\-\\-", stdout);
    roff(row->name);
    fputs("\\fR", stdout);
    if (row->values) {
        fputs(" \\fI", stdout);
        roff(row->values);
        fputs("\\fR", stdout);
    }
    putchar('\n');
    roff_sentence(row->meaning);
    if (row->fallback) {
        fputs("Default: ", stdout);
        roff(row->fallback);
        fputs(".\n", stdout);
    }
    const char *comma = "For: ";
    for (int i = 0; i < COMMANDS; i++)
        if (row->commands & 1u << i) {
            printf("%s%s", comma, commands[i].name);
            comma = ", ";
        }
    fputs(".\n", stdout);
}

static void generate_man(void) {
    printf(".\\\" Made from the table of options by tessera --generate man.\n"
           ".TH TESSERA 1 \"\" \"Tessera %s\" \"User Commands\"\n"
           ".SH NAME\ntessera \\- video VAE latents to pictures\n"
           ".SH SYNOPSIS\n.B tessera\n.I COMMAND\n[\\fIARGUMENT\\fR...] [\\fIOPTION\\fR...]\n"
           ".SH DESCRIPTION\nTessera decodes the latents of the SeedVR2 video VAE to pictures and "
           "videos, under a memory budget.\n"
           "It decodes on an NVIDIA GPU or on the CPU, blends with Vulkan (a software "
           "implementation will do),\n"
           "needs no display, and never uses the network.\n.SH COMMANDS\n",
        tsr_version());
    for (int i = 0; i < COMMANDS; i++)
        man_command(&commands[i]);
    printf(".SH OPTIONS\nSizes are in output pixels, rounded down to multiples of 8; \\fIN\\fR "
           "means \\fIN\\fRx\\fIN\\fR.\n"
           "K, M, G and T are powers of 1024.\n");
    for (int i = 0; i < option_count; i++)
        man_option(&option_table[i]);
    printf(".SH EXIT STATUS\n"
           ".TP\n.B 0\nEverything asked for was written.\n.TP\n.B 1\nIt could not be done: a bad "
           "file, device or disk.\n"
           ".TP\n.B 2\nThe command line was wrong.\n.TP\n.B 130\nInterrupted.\n"
           ".SH ENVIRONMENT\n.TP\n.B TESSERA_MODEL\nThe model, or its folder, where "
           "\\fB\\-\\-model\\fR is not given.\n"
           ".SH EXAMPLES\n");
    for (int i = 0; i < COMMANDS; i++)
        if (commands[i].example && commands[i].run) {
            fputs(".TP\n", stdout);
            roff_sentence(commands[i].meaning);
            fputs(".B ", stdout);
            roff(commands[i].example);
            putchar('\n');
        }
}

/* ---------------------------------------------------------------- completions */

/* The words of values that can be typed as they are, by spaces. */
static void print_words(const char *values) {
    for (const char *w = values; *w;) {
        int n = (int)strcspn(w, "|");
        bool literal = true;
        for (int i = 0; i < n; i++)
            literal &= !(w[i] >= 'A' && w[i] <= 'Z');
        if (literal)
            printf("%.*s ", n, w);
        w += n + (w[n] == '|');
    }
}

static bool takes_file(const option *row) {
    return row->values && strstr(row->values, "FILE");
}

static void bash_words(unsigned bit) {
    for (int i = 0; i < option_count; i++)
        if (option_table[i].commands & bit) {
            if (option_table[i].letter)
                printf("-%c ", option_table[i].letter);
            printf("--%s ", option_table[i].name);
        }
}

static void generate_bash(void) {
    printf("# bash completion of tessera, made from its table of options.\n"
           "_tessera() {\n"
           "    local cur=$2 prev=$3 words=\n"
           "    COMPREPLY=()\n"
           "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        words='--help --version ");
    for (int i = 0; i < COMMANDS; i++)
        printf("%s ", commands[i].name);
    printf("'\n        COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n        return\n    fi\n  "
           "  case $prev in\n");
    for (int i = 0; i < option_count; i++) {
        const option *row = &option_table[i];
        if (!row->values)
            continue;
        fputs("        ", stdout);
        if (row->letter)
            printf("-%c|", row->letter);
        printf("--%s) ", row->name);
        if (takes_file(row))
            printf("COMPREPLY=($(compgen -f -- \"$cur\")); compopt -o filenames; return ;;\n");
        else {
            fputs("COMPREPLY=($(compgen -W '", stdout);
            print_words(row->values);
            fputs("' -- \"$cur\")); return ;;\n", stdout);
        }
    }
    fputs("    esac\n    case ${COMP_WORDS[1]} in\n", stdout);
    for (int i = 0; i < COMMANDS; i++) {
        printf("        %s) words='", commands[i].name);
        bash_words(1u << i);
        fputs("' ;;\n", stdout);
    }
    fputs("    esac\n"
          "    case $cur in\n"
          "        -*) COMPREPLY=($(compgen -W \"$words\" -- \"$cur\")) ;;\n"
          "        *) COMPREPLY=($(compgen -f -- \"$cur\")); compopt -o filenames ;;\n"
          "    esac\n"
          "}\n"
          "complete -F _tessera tessera\n",
        stdout);
}

/* Inside '...' and a [...] or :...: of _arguments. */
static void zsh_text(const char *text) {
    for (; *text; text++)
        if (*text == '\'')
            fputs("'\\''", stdout);
        else {
            if (strchr("[]:\\", *text))
                putchar('\\');
            putchar(*text);
        }
}

static void zsh_option(const option *row) {
    fputs("            ", stdout);
    if (row->letter)
        printf("'(-%c --%s)'{-%c,--%s}'[", row->letter, row->name, row->letter, row->name);
    else
        printf("'--%s[", row->name);
    zsh_text(row->meaning);
    putchar(']');
    if (row->values) {
        printf(":%s:", row->name);
        if (takes_file(row))
            fputs("_files", stdout);
        else {
            putchar('(');
            print_words(row->values);
            putchar(')');
        }
    }
    fputs("' \\\n", stdout);
}

static void generate_zsh(void) {
    fputs("#compdef tessera\n# zsh completion of tessera, made from its table of options.\n"
          "if (( CURRENT == 2 )); then\n    local -a commands=(\n",
        stdout);
    for (int i = 0; i < COMMANDS; i++) {
        printf("        '%s:", commands[i].name);
        zsh_text(commands[i].meaning);
        fputs("'\n", stdout);
    }
    fputs("    )\n    _describe command commands\n    _arguments '--help[show the commands]' "
          "'--version[what this is]'\n"
          "    return\nfi\nlocal command=$words[2]\nshift words\n(( CURRENT-- ))\ncase $command in\n",
        stdout);
    for (int i = 0; i < COMMANDS; i++) {
        printf("    %s)\n        _arguments -s \\\n", commands[i].name);
        for (int k = 0; k < option_count; k++)
            if (option_table[k].commands & 1u << i)
                zsh_option(&option_table[k]);
        fputs("            '*:file:_files' ;;\n", stdout);
    }
    fputs("esac\n", stdout);
}

bool generate(const char *what) {
    if (strcmp(what, "man") == 0)
        generate_man();
    else if (strcmp(what, "bash") == 0)
        generate_bash();
    else if (strcmp(what, "zsh") == 0)
        generate_zsh();
    else
        return false;
    return true;
}
