/* The command line: one table of commands, one of options. Parsing, help, man page and shell
 * completions all come from these two; a new option is one row, a new command one row and one file.
 */
#ifndef TSR_OPTIONS_H
#define TSR_OPTIONS_H

#include <tessera/media.h>
#include <tessera/tessera.h>

/* Order of the table of commands. */
enum {
    CMD_RENDER,
    CMD_VIEW,
    CMD_ENCODE,
    CMD_TUNE,
    CMD_PLAN,
    CMD_BENCH,
    CMD_INFO,
    CMD_INSPECT,
    CMD_COMPARE,
    CMD_CONVERT,
    COMMANDS
};

typedef enum when { WHEN_AUTO, WHEN_ALWAYS, WHEN_NEVER } when;

/* What was said, in the library's own params where it has some. Strings point into argv. */
typedef struct options {
    const struct command *command;
    char **args; /* the arguments that are no options */
    int count;
    bool help, json, verbose, quiet;
    when progress;
    const char *model, *trace;
    tsr_engine_params engine;
    tsr_plan_params plan;
    tsr_latent_params latent;
    bool latent_scale_given;
    tsr_writer_params writer;
    bool no_dither;
    int64_t first, end; /* output frames [first, end); end 0: to the last */
    int repeat;
    bool sample, stats; /* encode */
    int64_t seed;
    const char *like; /* render */
    bool psnr, fps_given, resume;
    int batch_overlap;
    const char *type; /* convert */
    int block;        /* compare */
    bool fullscreen;
    const char *geometry, *offscreen, *script;
    double scale; /* of the window's text and controls; 0: the display's */
} options;

typedef struct command {
    const char *name;
    const char *args;             /* as the help shows them */
    int least, most;              /* how many */
    const char *meaning;          /* one sentence */
    const char *more;             /* what else its help says; may be NULL */
    const char *example;          /* may be NULL */
    int (*run)(const options *o); /* returns the exit status */
} command;
extern const command commands[COMMANDS];

typedef struct option {
    char letter; /* 0: none */
    const char *name;
    const char *values;   /* "auto|none|WxH": words in lower case are values, others what they stand
                             for. NULL: a switch */
    const char *fallback; /* the default, for people; may be NULL */
    const char *meaning;
    unsigned commands; /* bits 1 << CMD_... */
    /* Takes the value into `at` of options; false where it is none. */
    bool (*parse)(options *o, const struct option *row, const char *value);
    size_t at;
    int64_t least, most; /* of whole numbers */
    bool optional;       /* the value may be left out; the next argument is one only if it is a whole number */
} option;
extern const option option_table[];
extern const int option_count;

/* Fills o from argv[2..], for the command in o->command. False: wrong, and said so on standard
 * error. */
bool options_parse(options *o, int argc, char **argv);
/* n whole numbers, each at least `least`, as in "1920x1080x81". */
bool parse_sizes(const char *text, int n, int64_t least, int64_t *sizes);

void help_overview(void);
void help_command(const command *c);
/* "man", "bash" or "zsh" on standard output; false: no such thing. */
bool generate(const char *what);

#endif
