/* Graphs. */
#include "state.h"

#include <random>

static CUresult take_node(const CUDA_KERNEL_NODE_PARAMS *p, node *out) {
    const unsigned grid[3] = {p->gridDimX, p->gridDimY, p->gridDimZ};
    const unsigned block[3] = {p->blockDimX, p->blockDimY, p->blockDimZ};
    out->is_copy = false;
    NEED(!p->extra, "a kernel node with parameters of two kinds");
    return take_launch(p->func ? reinterpret_cast<CUkernel>(p->func) : p->kern, grid, block, p->sharedMemBytes,
        p->kernelParams, &out->run);
}

/* One end of a copy: where, if all of it is in memory of the kind that it is said to be in. */
static char *copy_end(CUmemorytype type, CUdeviceptr device, const void *host, size_t bytes) {
    char *p = type == CU_MEMORYTYPE_HOST ? static_cast<char *>(const_cast<void *>(host)) : at(device);
    bool right = type == CU_MEMORYTYPE_HOST ? is_pinned(p, bytes) : type == CU_MEMORYTYPE_DEVICE && is_mapped(p, bytes);
    return right ? p : nullptr;
}

/* Of one row, whose pitch and height say nothing. */
static CUresult take_copy(const CUDA_MEMCPY3D *p, CUcontext context, node *out) {
    NEED(context == &the_context, "a copy node of no context");
    char *to = copy_end(p->dstMemoryType, p->dstDevice, p->dstHost, p->WidthInBytes);
    char *from = copy_end(p->srcMemoryType, p->srcDevice, p->srcHost, p->WidthInBytes);
    NEED(to && from && p->Height == 1 && p->Depth == 1 && p->WidthInBytes > 0,
        "a copy node that is not one row between memory of the device and pinned memory");
    *out = node{true, {}, {to, from, p->WidthInBytes}, {}, static_cast<int>(p->srcMemoryType * 8 + p->dstMemoryType)};
    return CUDA_SUCCESS;
}

static CUresult add_node(CUgraphNode *out, CUgraph g, const CUgraphNode *before, size_t n, const node &what) {
    NEED(graphs.count(g), "a node for a graph that does not exist");
    g->nodes.push_back(what);
    NEED(std::set<CUgraphNode>(before, before + n).size() == n, "an edge twice");
    for (size_t i = 0; i < n; i++) {
        bool here = before[i] && static_cast<size_t>(before[i]->index) < g->handles.size();
        NEED(here && before[i] == &g->handles[static_cast<size_t>(before[i]->index)],
            "an edge from no node of this graph");
        g->nodes.back().after.push_back(before[i]->index);
    }
    g->handles.push_back({static_cast<int>(g->nodes.size()) - 1, what.is_copy});
    *out = &g->handles.back();
    return CUDA_SUCCESS;
}

static CUresult update(CUgraphExec e, CUgraphNode n, const node &what) {
    NEED(execs.count(e) && graphs.count(e->of), "an update by a node of a graph that is gone");
    NEED(n && n->index < static_cast<int>(e->nodes.size()) && n->is_copy == what.is_copy, "an update of no such node");
    node &old = e->nodes[static_cast<size_t>(n->index)];
    NEED(what.is_copy || what.run.kernel == old.run.kernel, "an update to another kernel");
    NEED(what.ways == old.ways, "an update to a copy between other kinds of memory");
    std::vector<int> after = old.after;
    old = what;
    old.after = after;
    counts.updates++;
    return CUDA_SUCCESS;
}

/* An order that the edges allow, by chance. */
static std::vector<int> some_order(const std::deque<node> &nodes) {
    std::vector<int> order, ready, missing;
    std::vector<std::vector<int>> next(nodes.size());
    std::mt19937_64 chance(++seed);
    for (size_t i = 0; i < nodes.size(); i++) {
        missing.push_back(static_cast<int>(nodes[i].after.size()));
        for (int a : nodes[i].after)
            next[static_cast<size_t>(a)].push_back(static_cast<int>(i));
        if (nodes[i].after.empty())
            ready.push_back(static_cast<int>(i));
    }
    while (!ready.empty()) {
        size_t pick = chance() % ready.size();
        int now = ready[pick];
        ready.erase(ready.begin() + static_cast<std::ptrdiff_t>(pick));
        order.push_back(now);
        for (int i : next[static_cast<size_t>(now)])
            if (--missing[static_cast<size_t>(i)] == 0)
                ready.push_back(i);
    }
    return order;
}

extern "C" {

CUresult CUDAAPI cuGraphCreate(CUgraph *out, unsigned) {
    BEGIN
    return make(out, graphs);
}
CUresult CUDAAPI cuGraphDestroy(CUgraph g) {
    BEGIN_FREEING
    return drop("destroying", g, graphs, end);
}
CUresult CUDAAPI cuGraphAddKernelNode(
    CUgraphNode *out, CUgraph g, const CUgraphNode *before, size_t n, const CUDA_KERNEL_NODE_PARAMS *p) {
    BEGIN
    node what = {};
    CUresult r = take_node(p, &what);
    return r == CUDA_SUCCESS ? add_node(out, g, before, n, what) : r;
}
CUresult CUDAAPI cuGraphAddMemcpyNode(
    CUgraphNode *out, CUgraph g, const CUgraphNode *before, size_t n, const CUDA_MEMCPY3D *p, CUcontext c) {
    BEGIN
    node what = {};
    CUresult r = take_copy(p, c, &what);
    return r == CUDA_SUCCESS ? add_node(out, g, before, n, what) : r;
}
CUresult CUDAAPI cuGraphInstantiate(CUgraphExec *out, CUgraph g, unsigned long long) {
    BEGIN
    NEED(graphs.count(g) && !g->nodes.empty(), "making no graph ready");
    make(out, execs);
    (*out)->of = g;
    (*out)->nodes = g->nodes;
    counts.built++;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuGraphExecDestroy(CUgraphExec e) {
    BEGIN_FREEING
    return drop("destroying", e, execs, end);
}
CUresult CUDAAPI cuGraphExecKernelNodeSetParams(CUgraphExec e, CUgraphNode n, const CUDA_KERNEL_NODE_PARAMS *p) {
    BEGIN
    node what = {};
    CUresult r = take_node(p, &what);
    return r == CUDA_SUCCESS ? update(e, n, what) : r;
}
CUresult CUDAAPI cuGraphExecMemcpyNodeSetParams(CUgraphExec e, CUgraphNode n, const CUDA_MEMCPY3D *p, CUcontext c) {
    BEGIN
    node what = {};
    CUresult r = take_copy(p, c, &what);
    return r == CUDA_SUCCESS ? update(e, n, what) : r;
}
CUresult CUDAAPI cuGraphLaunch(CUgraphExec e, CUstream s) {
    BEGIN
    NEED(execs.count(e) && known(s), "launching no graph");
    counts.graphs++;
    for (int i : some_order(e->nodes)) {
        node n = e->nodes[static_cast<size_t>(i)];
        queue(s, [n] { return n.is_copy ? run_copy(n.move) : run_launch(n.run); });
    }
    return CUDA_SUCCESS;
}

} // extern "C"
