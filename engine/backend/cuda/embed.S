/* The compiled kernels, as they come from nvcc. FATBIN is their file. */
    .section .rodata.tsr_fatbin, "a", %progbits
    .global tsr_fatbin
    .hidden tsr_fatbin
    .balign 64
tsr_fatbin:
    .incbin FATBIN
    .byte 0
    .section .note.GNU-stack, "", %progbits
