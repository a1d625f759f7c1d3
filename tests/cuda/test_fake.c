/* Would the driver without a GPU notice? What a backend may do wrong is done wrong here, one thing at a time; each is
 * refused and named. */
#include "fake_help.h"

#include "backend/cuda/device.h"

#include <sys/mman.h>
#include <unistd.h>

enum { PIECE = 2 << 20 }; /* what the fake allocates by */

static tsr_backend *backend;
static tsr_cuda *cuda;
static tsr_cuda_block block;

/* A backend and a piece of its memory, with nothing wrong so far. */
static void begin(void) {
    open_fake();
    ok(tsr_cuda_create(&backend, -1));
    cuda = (tsr_cuda *)backend;
    ok(tsr_cuda_block_create(cuda, PIECE, true, "a test", &block));
    cr_assert_str_empty(fake.wrong());
}
TestSuite(cuda_fake, .init = begin);

/* A test whose body is wrong; `says` is what the driver says of it. */
#define FAULT(name, says)                                                                                              \
    static void name(void);                                                                                            \
    Test(cuda_fake, name) {                                                                                            \
        name();                                                                                                        \
        cr_assert(strstr(fake.wrong(), says), "'%s' does not say '%s'", fake.wrong(), says);                           \
    }                                                                                                                  \
    static void name(void)

static void refused(CUresult r) {
    cr_expect_neq(r, CUDA_SUCCESS);
}
static void taken(CUresult r) {
    cr_assert_eq(r, CUDA_SUCCESS, "%s", fake.wrong());
}
static CUmemAllocationProp memory_of(int device) {
    return (CUmemAllocationProp){
        .type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device}};
}
static void finish_fails(void) { /* what was queued is found wrong when its turn comes */
    refused(tsr_cu.p_cuStreamSynchronize(cuda->stream));
}

/* ---------------------------------------------------------------- access */

static char bytes[4096];

FAULT(writing_where_nothing_is, "memory that is not mapped") {
    refused(tsr_cu.p_cuMemcpyHtoDAsync(block.at + PIECE, bytes, sizeof bytes, cuda->stream));
}
FAULT(writing_beyond_the_end, "memory that is not mapped") {
    refused(tsr_cu.p_cuMemcpyHtoDAsync(block.at + PIECE - 1, bytes, 2, cuda->stream));
}
FAULT(reading_the_hosts_own_memory, "memory that is not mapped") {
    refused(tsr_cu.p_cuMemcpyDtoHAsync(bytes, (CUdeviceptr)(uintptr_t)bytes, 1, cuda->stream));
}
FAULT(reading_what_was_given_back, "memory that is not mapped") {
    CUdeviceptr was = block.at;
    tsr_cuda_block_destroy(&block);
    refused(tsr_cu.p_cuMemcpyDtoHAsync(bytes, was, sizeof bytes, cuda->stream));
}
FAULT(copying_what_was_given_back_meanwhile, "memory that is not mapped") {
    void *host = NULL;
    taken(tsr_cu.p_cuMemHostAlloc(&host, 4096, CU_MEMHOSTALLOC_DEVICEMAP));
    taken(tsr_cu.p_cuMemcpyAsync(block.at, (CUdeviceptr)(uintptr_t)host, 4096, cuda->stream));
    tsr_cu.p_cuMemFreeHost(host);
    finish_fails();
}
FAULT(a_copy_over_itself, "overlaps itself") {
    taken(tsr_cu.p_cuMemcpyAsync(block.at, block.at + 256, 512, cuda->stream));
    finish_fails();
}
FAULT(memory_that_nobody_may_touch, "memory that is not mapped") {
    CUmemGenericAllocationHandle handle;
    CUdeviceptr at;
    CUmemAllocationProp prop = memory_of(0);
    taken(tsr_cu.p_cuMemAddressReserve(&at, PIECE, 0, 0, 0));
    taken(tsr_cu.p_cuMemCreate(&handle, PIECE, &prop, 0));
    taken(tsr_cu.p_cuMemMap(at, PIECE, 0, handle, 0));
    refused(tsr_cu.p_cuMemcpyHtoDAsync(at, bytes, sizeof bytes, cuda->stream)); /* without cuMemSetAccess */
}

static CUresult launch(const tsr_store_args *args, unsigned threads, unsigned shared) {
    void *param[1] = {(void *)(uintptr_t)args};
    return tsr_cu.p_cuLaunchKernel(
        (CUfunction)cuda->pass[PASS_tsr_store], 1, 1, 1, threads, 1, 1, shared, cuda->stream, param, NULL);
}
/* 256 numbers from the start of the block to `to`. */
static tsr_store_args storing(CUdeviceptr to) {
    return (tsr_store_args){.in = (const void *)(uintptr_t)block.at,
        .out = (void *)(uintptr_t)to,
        .pixels = 256,
        .c = 1,
        .in_type = TSR_ELEM_F32,
        .out_type = TSR_ELEM_F16};
}

FAULT(a_kernel_that_writes_beyond_the_end, "global memory") {
    tsr_store_args args = storing(block.at + PIECE - 16);
    taken(launch(&args, 256, 0));
    finish_fails();
}
FAULT(a_block_of_few_threads, "blocks of 128 threads") {
    tsr_store_args args = storing(block.at + 4096);
    refused(launch(&args, 128, 0));
}
FAULT(shared_memory_that_was_not_asked_for, "bytes of shared memory") {
    tsr_store_args args = storing(block.at + 4096);
    refused(launch(&args, 256, 64 << 10));
}

/* ---------------------------------------------------------------- sizes, and life */

FAULT(half_a_piece, "no multiple of the granularity") {
    CUmemGenericAllocationHandle handle;
    CUmemAllocationProp prop = memory_of(0);
    refused(tsr_cu.p_cuMemCreate(&handle, PIECE / 2, &prop, 0));
}
FAULT(addresses_of_half_a_piece, "no multiple of the granularity") {
    CUdeviceptr at;
    refused(tsr_cu.p_cuMemAddressReserve(&at, PIECE + 4096, 0, 0, 0));
}
FAULT(more_addresses_than_memory, "no memory of this size") {
    CUdeviceptr at;
    taken(tsr_cu.p_cuMemAddressReserve(&at, 2 * PIECE, 0, 0, 0));
    refused(tsr_cu.p_cuMemMap(at, 2 * PIECE, 0, block.handle, 0));
}
FAULT(memory_of_another_device, "another device") {
    CUmemGenericAllocationHandle handle;
    CUmemAllocationProp prop = memory_of(1);
    refused(tsr_cu.p_cuMemCreate(&handle, PIECE, &prop, 0));
}
FAULT(addresses_freed_under_their_memory, "addresses that are mapped") {
    refused(tsr_cu.p_cuMemAddressFree(block.at, block.bytes));
}
FAULT(memory_released_twice, "releasing memory twice") {
    taken(tsr_cu.p_cuMemRelease(block.handle));
    refused(tsr_cu.p_cuMemRelease(block.handle));
}
FAULT(memory_unmapped_under_work, "while work waits") {
    taken(tsr_cu.p_cuMemcpyHtoDAsync(block.at, bytes, sizeof bytes, cuda->stream));
    refused(tsr_cu.p_cuMemUnmap(block.at, block.bytes));
}
FAULT(a_stream_that_is_gone, "memory that is not mapped") {
    CUstream stream;
    taken(tsr_cu.p_cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    taken(tsr_cu.p_cuStreamDestroy(stream));
    refused(tsr_cu.p_cuMemcpyHtoDAsync(block.at, bytes, sizeof bytes, stream));
}
FAULT(no_context, "without a context") {
    taken(tsr_cu.p_cuCtxSetCurrent(NULL));
    refused(tsr_cu.p_cuMemcpyHtoDAsync(block.at, bytes, sizeof bytes, cuda->stream));
}
FAULT(memory_asked_for_without_a_context, "cuMemGetInfo_v2 without a context") {
    size_t left, total;
    taken(tsr_cu.p_cuCtxSetCurrent(NULL));
    refused(tsr_cu.p_cuMemGetInfo(&left, &total));
}
FAULT(pinned_memory_freed_without_a_context, "cuMemFreeHost without a context") {
    void *host = NULL;
    taken(tsr_cu.p_cuMemHostAlloc(&host, 4096, CU_MEMHOSTALLOC_DEVICEMAP));
    taken(tsr_cu.p_cuCtxSetCurrent(NULL));
    refused(tsr_cu.p_cuMemFreeHost(host));
}
FAULT(a_stream_waited_for_without_a_context, "cuStreamSynchronize without a context") {
    taken(tsr_cu.p_cuCtxSetCurrent(NULL));
    finish_fails();
}
FAULT(shared_memory_asked_for_on_another_device, "bytes of shared memory") {
    refused(tsr_cu.p_cuKernelSetAttribute(
        CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 64 << 10, cuda->pass[PASS_tsr_store], 1));
}
FAULT(memory_taken_while_decoding, "cuMemCreate while decoding") {
    CUmemGenericAllocationHandle handle;
    CUmemAllocationProp prop = memory_of(0);
    fake.settled(1);
    refused(tsr_cu.p_cuMemCreate(&handle, PIECE, &prop, 0));
}
FAULT(memory_pinned_while_decoding, "cuMemHostAlloc while decoding") {
    void *host = NULL;
    fake.settled(1);
    refused(tsr_cu.p_cuMemHostAlloc(&host, 4096, CU_MEMHOSTALLOC_DEVICEMAP));
}

/* ---------------------------------------------------------------- waits, and timelines of the other API */

FAULT(a_wait_for_an_event_that_nobody_records, "nothing will signal") {
    CUevent event;
    taken(tsr_cu.p_cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
    refused(tsr_cu.p_cuStreamWaitEvent(cuda->stream, event, 0));
}
FAULT(a_time_that_was_not_waited_for, "not waited for") {
    CUevent events[2];
    float ms;
    for (int i = 0; i < 2; i++) {
        taken(tsr_cu.p_cuEventCreate(&events[i], 0));
        taken(tsr_cu.p_cuMemcpyHtoDAsync(block.at, bytes, sizeof bytes, cuda->stream));
        taken(tsr_cu.p_cuEventRecord(events[i], cuda->stream));
    }
    refused(tsr_cu.p_cuEventElapsedTime(&ms, events[0], events[1]));
}

FAULT(a_time_between_events_that_keep_none, "that keep none") {
    CUevent event;
    float ms;
    taken(tsr_cu.p_cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
    taken(tsr_cu.p_cuEventRecord(event, cuda->stream));
    refused(tsr_cu.p_cuEventElapsedTime(&ms, event, event));
}

static uint64_t reached;
static void *timeline_open(int fd) {
    (void)fd;
    return &reached;
}
static void timeline_signal(void *timeline, uint64_t value) {
    *(uint64_t *)timeline = value;
}
static uint64_t timeline_value(void *timeline) {
    return *(uint64_t *)timeline;
}
/* Two timelines, and no patience. */
static void share_timelines(void) {
    fake_cuda_config config = ADA;
    config.patience = 1;
    fake.reconfigure(&config);
    fake.set_timelines(&(fake_cuda_timelines){timeline_open, timeline_signal, timeline_value});
    ok(tsr_cuda_share(cuda, memfd_create("lane", 0), memfd_create("progress", 0)));
}

FAULT(a_wait_that_nobody_signals, "nobody signals") {
    share_timelines();
    ok(tsr_cuda_await_progress(cuda, 3));
    finish_fails();
    tsr_cuda_unshare(cuda);
}
FAULT(a_timeline_that_goes_back, "a timeline that goes from 5 to 4") {
    share_timelines();
    ok(tsr_cuda_signal_lane(cuda, 5));
    cr_assert_neq(tsr_cuda_signal_lane(cuda, 4), TSR_OK);
    tsr_cuda_unshare(cuda); /* ends the device's thread */
}
FAULT(a_timeline_released_under_work, "releasing a timeline while work waits") {
    share_timelines();
    taken(tsr_cu.p_cuMemcpyHtoDAsync(block.at, bytes, sizeof bytes, cuda->stream));
    tsr_cuda_unshare(cuda);
}
FAULT(more_imported_than_there_is, "importing 8192 bytes of a file of 4096") {
    tsr_cuda_foreign foreign;
    int fd = memfd_create("memory", MFD_CLOEXEC);
    cr_assert_eq(ftruncate(fd, 4096), 0);
    cr_assert_neq(tsr_cuda_foreign_import(cuda, fd, 8192, false, &foreign), TSR_OK);
}
FAULT(memory_exported_that_was_not_made_for_it, "not made for it") {
    tsr_cuda_block plain;
    int fd;
    ok(tsr_cuda_block_create(cuda, PIECE, false, "a test", &plain));
    refused(tsr_cu.p_cuMemExportToShareableHandle(&fd, plain.handle, tsr_cuda_handle_type, 0));
}

/* ---------------------------------------------------------------- graphs */

static CUDA_KERNEL_NODE_PARAMS storing_node(void) {
    static tsr_store_args args;
    static void *param[1] = {&args};
    args = storing(block.at + 4096);
    return (CUDA_KERNEL_NODE_PARAMS){.kern = cuda->pass[PASS_tsr_store],
        .gridDimX = 1,
        .gridDimY = 1,
        .gridDimZ = 1,
        .blockDimX = 256,
        .blockDimY = 1,
        .blockDimZ = 1,
        .kernelParams = param};
}
static CUgraph graph_of_one(CUgraphNode *node) {
    CUDA_KERNEL_NODE_PARAMS p = storing_node();
    CUgraph graph;
    taken(tsr_cu.p_cuGraphCreate(&graph, 0));
    taken(tsr_cu.p_cuGraphAddKernelNode(node, graph, NULL, 0, &p));
    return graph;
}

FAULT(an_edge_from_another_graph, "no node of this graph") {
    CUgraphNode first, second;
    CUDA_KERNEL_NODE_PARAMS p = storing_node();
    graph_of_one(&first);
    CUgraph other = graph_of_one(&second);
    refused(tsr_cu.p_cuGraphAddKernelNode(&second, other, &first, 1, &p));
}
FAULT(an_edge_twice, "an edge twice") {
    CUgraphNode node, second;
    CUDA_KERNEL_NODE_PARAMS p = storing_node();
    CUgraph graph = graph_of_one(&node);
    refused(tsr_cu.p_cuGraphAddKernelNode(&second, graph, (CUgraphNode[]){node, node}, 2, &p));
}
FAULT(an_update_by_a_node_that_is_gone, "a graph that is gone") {
    CUgraphNode node;
    CUgraphExec exec;
    CUDA_KERNEL_NODE_PARAMS p = storing_node();
    CUgraph graph = graph_of_one(&node);
    taken(tsr_cu.p_cuGraphInstantiate(&exec, graph, 0));
    taken(tsr_cu.p_cuGraphExecKernelNodeSetParams(exec, node, &p));
    taken(tsr_cu.p_cuGraphDestroy(graph));
    refused(tsr_cu.p_cuGraphExecKernelNodeSetParams(exec, node, &p));
}
FAULT(a_graph_that_is_gone, "launching no graph") {
    CUgraphNode node;
    CUgraphExec exec;
    CUgraph graph = graph_of_one(&node);
    taken(tsr_cu.p_cuGraphInstantiate(&exec, graph, 0));
    taken(tsr_cu.p_cuGraphExecDestroy(exec));
    refused(tsr_cu.p_cuGraphLaunch(exec, cuda->stream));
}
FAULT(a_copy_node_from_pageable_memory, "pinned memory") {
    CUgraph graph;
    CUgraphNode node;
    CUDA_MEMCPY3D copy = {.srcMemoryType = CU_MEMORYTYPE_HOST,
        .srcHost = bytes,
        .dstMemoryType = CU_MEMORYTYPE_DEVICE,
        .dstDevice = block.at,
        .WidthInBytes = 256,
        .Height = 1,
        .Depth = 1};
    taken(tsr_cu.p_cuGraphCreate(&graph, 0));
    refused(tsr_cu.p_cuGraphAddMemcpyNode(&node, graph, NULL, 0, &copy, cuda->context));
}
