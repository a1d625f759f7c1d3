/* The journal of a writer that may be killed at any moment: OUT.resume, a text file that only ever grows.
 *
 *     tessera resume 1
 *     NAME VALUE           what is written, line by line
 *     begin
 *     FRAMES CODED BYTES   that many frames are safe. A video's: frames in coded parts, and where those parts end
 *     whole                everything is safe, only the name is missing
 *
 * "note NAME VALUE", before `begin` or behind it, is kept for the next run and not compared; the last of a name counts.
 * A line counts once its newline is there. What a line says is on disk before the line is. */
#ifndef TSR_JOURNAL_H
#define TSR_JOURNAL_H

#include <tessera/media.h>

#include "core/core.h"

typedef struct tsr_journal {
    int fd;           /* -1: none is kept, or not yet */
    char *path;       /* NULL: none is kept */
    char *parts;      /* beside it: a video's frames and parts */
    char *head;       /* all before the first record */
    bool left, whole; /* one was there already; and said so */
    int64_t frames, coded, bytes;
} tsr_journal;
#define TSR_JOURNAL_NONE                                                                                               \
    { .fd = -1 }

/* Reads the journal that may have been left for this output; TSR_ERR_FORMAT where it is another's. */
tsr_status tsr_journal_open(tsr_journal *j, const tsr_writer_params *p);
/* Makes one where none was left. */
tsr_status tsr_journal_begin(tsr_journal *j);
tsr_status tsr_journal_record(tsr_journal *j, int64_t frames, int64_t coded, int64_t bytes);
tsr_status tsr_journal_note(tsr_journal *j, const char *name, const char *value);
/* What was recorded is on disk: before a file gets its name. A record that is lost in a power cut is only work lost. */
tsr_status tsr_journal_sync(tsr_journal *j);
tsr_status tsr_journal_whole(tsr_journal *j);
/* "cannot go on: JOURNAL what or remove it to start anew", what being "is ...; do ...," */
tsr_status tsr_journal_misfit(const tsr_journal *j, const char *what, ...) __attribute__((format(printf, 2, 3)));
/* Removes it, and a video's parts. */
void tsr_journal_remove(tsr_journal *j);
void tsr_journal_close(tsr_journal *j);
/* Frames of the output that a journal beside it says are there; 0 where there is none. */
int64_t tsr_journal_frames(const char *out);
/* Removes the journal of a render that is not gone on with: what it speaks of will be written over. */
void tsr_journal_discard(const char *out);

#endif
