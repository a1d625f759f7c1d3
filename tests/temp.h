/* A folder of this process's own under TMPDIR for the files a test writes; removed when the process
 * ends. */
#ifndef TSR_TESTS_TEMP_H
#define TSR_TESTS_TEMP_H

/* "FOLDER/name"; one of 16 buffers in turn, so a few paths may be in use at once. Aborts where it
 * cannot be made. */
const char *temp_path(const char *name);

#endif
