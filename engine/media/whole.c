/* Containers that say how long they are, where libav takes a file cut short for one that ends there. */
#include "media/read.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A Matroska number of 1 to 8 bytes: its length, 0 where there is none. Unknown sizes are all ones. */
static size_t ebml_number(const uint8_t *p, size_t n, uint64_t *value, bool *unknown) {
    size_t length = 1;
    if (n == 0 || p[0] == 0)
        return 0;
    while (!(p[0] & (0x80 >> (length - 1))))
        length++;
    if (length > n)
        return 0;
    *value = p[0] & (0x7f >> (length - 1));
    for (size_t i = 1; i < length; i++)
        *value = *value << 8 | p[i];
    *unknown = *value == ((uint64_t)1 << (7 * length)) - 1;
    return length;
}

/* The header element, then the segment, which is the rest of the file. */
static bool matroska_is_cut(const uint8_t *p, size_t n, uint64_t size) {
    static const uint8_t segment[] = {0x18, 0x53, 0x80, 0x67};
    uint64_t header = 0, body = 0;
    bool unknown = false;
    size_t at = 4, length = ebml_number(p + at, n - at, &header, &unknown);
    if (length == 0 || unknown || header > n - at - length)
        return false; /* libav's to complain of */
    at += length + (size_t)header;
    if (n - at < 4)
        return n == size;
    if (memcmp(p + at, segment, 4) != 0)
        return false;
    at += 4;
    length = ebml_number(p + at, n - at, &body, &unknown);
    return length > 0 && !unknown && body > size - at - length;
}

static bool riff_is_cut(const uint8_t *p, uint64_t size) {
    uint64_t body = p[4] | p[5] << 8 | p[6] << 16 | (uint64_t)p[7] << 24;
    return body != UINT32_MAX && body > size - 8; /* all ones: longer than 4 GiB */
}

tsr_status tsr_reader_check_whole(const tsr_reader *r) {
    uint8_t head[256], last = 0;
    struct stat st;
    int fd = open(r->path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, head, sizeof head);
    bool cut = false;
    if (n >= 12 && fstat(fd, &st) == 0 && st.st_size >= n) {
        if (memcmp(head, "\x1a\x45\xdf\xa3", 4) == 0)
            cut = matroska_is_cut(head, (size_t)n, (uint64_t)st.st_size);
        else if (memcmp(head, "RIFF", 4) == 0)
            cut = riff_is_cut(head, (uint64_t)st.st_size);
        else if (memcmp(head, "GIF8", 4) == 0) /* closed by a semicolon */
            cut = pread(fd, &last, 1, st.st_size - 1) != 1 || (last != 0x3b && last != 0);
    }
    if (fd >= 0)
        close(fd);
    return cut ? tsr_reader_bad(r, "is cut short; fetch it again") : TSR_OK;
}
