/* OUT.parts: what a video's writer that is killed leaves for the next one.
 *
 *     frames   TSR_PART_FRAMES places of frame_bytes and their checksum: those of the part in hand
 *     packets  the codec's own header, then those of the parts that are coded; each with a checksum
 *
 * So no frame has to be made again: those of the part in hand are coded anew. How much of it counts says the journal.
 */
#ifndef TSR_PARTS_H
#define TSR_PARTS_H

#include "media/media.h"

#include <libavcodec/avcodec.h>

typedef struct tsr_parts {
    tsr_out file;
    uint8_t *frame; /* one, packed: [frame_bytes], then its checksum */
    int frame_bytes;
    int64_t begin, at; /* in the file: the first packet's place, the next one's */
} tsr_parts;
#define TSR_PARTS_NONE                                                                                                 \
    { .file = TSR_OUT_NONE }

/* Makes the file, or with `left` opens the one that is there and has `bytes` of packets that count. Frames are like
 * `like`; the codec's parameters must be those the file was begun with. */
tsr_status tsr_parts_open(
    tsr_parts *p, const char *path, bool left, int64_t bytes, const AVFrame *like, const AVCodecContext *codec);
tsr_status tsr_parts_put_frame(tsr_parts *p, int64_t place, const AVFrame *frame);
tsr_status tsr_parts_get_frame(tsr_parts *p, int64_t place, AVFrame *frame);
tsr_status tsr_parts_put_packet(tsr_parts *p, const AVPacket *packet);
/* The packet at *at, of those that count, and moves *at behind it; *got is false behind the last. */
tsr_status tsr_parts_get_packet(tsr_parts *p, int64_t *at, AVPacket *packet, bool *got);
/* How many bytes of packets there are: what tsr_parts_open wants to be told. */
int64_t tsr_parts_bytes(const tsr_parts *p);
void tsr_parts_close(tsr_parts *p);

#endif
