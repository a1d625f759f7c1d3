#include "shim.h"

#include <algorithm>
#include <array>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>

#ifdef SHIM_ASAN /* by meson.build: the emulator itself is not instrumented, what it runs is */
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace shim {

dim3 grid_dim, block_dim;
bool exact_sums = true;
tensor_core adds = {0, 0, 0};

namespace {

#ifdef SHIM_ASAN
constexpr size_t stack_bytes = 512 << 10;
#else
constexpr size_t stack_bytes = 128 << 10;
#endif

/* ---------------------------------------------------------------- switching stacks */

#if defined(__x86_64__)
struct context {
    void *sp = nullptr;
};
/* Saves the callee-saved registers and the stack pointer in *from, takes those of *to. */
extern "C" void tsr_shim_switch(void **from, void *to);
asm(R"(
    .text
    .globl tsr_shim_switch
    .hidden tsr_shim_switch
    .type tsr_shim_switch,@function
tsr_shim_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp,(%rdi)
    mov %rsi,%rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
    .size tsr_shim_switch,.-tsr_shim_switch
)");
void context_make(context &c, uint8_t *stack, void (*fn)()) {
    uint64_t *sp = reinterpret_cast<uint64_t *>(stack + stack_bytes - 64);
    *--sp = 0; /* fn never returns; this also gives it the alignment a call would */
    *--sp = reinterpret_cast<uint64_t>(fn);
    for (int i = 0; i < 6; i++)
        *--sp = 0;
    c.sp = sp;
}
void context_switch(context &from, context &to) {
    tsr_shim_switch(&from.sp, to.sp);
}
#else
struct context {
    ucontext_t u;
};
void context_make(context &c, uint8_t *stack, void (*fn)()) {
    getcontext(&c.u);
    c.u.uc_stack.ss_sp = stack;
    c.u.uc_stack.ss_size = stack_bytes;
    c.u.uc_link = nullptr;
    makecontext(&c.u, fn, 0);
}
void context_switch(context &from, context &to) {
    swapcontext(&from.u, &to.u);
}
#endif

/* ---------------------------------------------------------------- the state of a launch */

enum fiber_state { READY, IN_WARP_OP, AT_BARRIER, DONE };

struct copy { /* one cp.async */
    uint32_t to, bytes;
    const void *from;
};

struct fiber {
    context ctx;
    uint8_t *stack;
    void *asan_fake = nullptr;
    ids id;
    int line;                      /* of what it waits in */
    std::vector<copy> copies;      /* issued, not waited for; oldest first */
    std::vector<size_t> groups;    /* how many of them each committed group has */
    size_t open;                   /* how many are in no group yet */
    std::vector<product> products; /* begun, not waited for */
    bool moved;                    /* registers, since the last fence */
    uint32_t writes, published;    /* to shared memory; of them those that wgmma sees */
};

struct lane_accesses { /* the n-th access of each lane at one place of the source: where lanes meet
                        */
    uint32_t address[32];
    uint32_t lanes = 0;
};

struct site {
    int line;
    uint32_t bytes;
    bool write;
    unsigned at[32]; /* how often each lane was here */
    std::vector<lane_accesses> access;
};

struct warp {
    int waiting = 0; /* lanes in the current warp_op */
    const char *name;
    int line;
    warp_call call;
    std::vector<site> sites;
};

enum word_state : uint8_t { UNWRITTEN, PENDING, WRITTEN };
constexpr int16_t nobody = -1, several = -2;
struct word { /* what is known of 4 bytes of shared memory */
    word_state state = UNWRITTEN;
    int16_t writer = nobody, reader = nobody; /* warps */
    uint16_t thread = 0;                      /* the writer, and the number of its write */
    uint32_t write = 0;
    uint32_t written = 0, read = 0; /* the barrier interval they did it in */
};

/* A warp's turn to run: its lanes in a shuffled order, for so many rounds. */
struct warp_turn {
    unsigned lane[32];
    unsigned next, rounds;
    bool any, moved; /* a lane ran: in this round, at all */
};

struct machine {
    context scheduler;
    const void *asan_stack = nullptr;
    size_t asan_stack_bytes = 0;
    void *asan_fake = nullptr;

    fiber *now = nullptr; /* NULL: the scheduler */
    warp_turn turn;
    std::vector<fiber> fibers;
    uint8_t state[1024]; /* of each fiber: fiber_state */
    std::vector<warp> warps;
    unsigned lives = 0, at_barrier = 0;
    int barrier_line = 0;
    uint32_t interval = 1; /* barriers passed, plus one */

    kernel_fn kernel = nullptr;
    const void *args = nullptr;
    std::vector<uint8_t> shared;
    std::vector<word> words;
    const options *how = nullptr;
    counters *count = nullptr;
    counters none;
    uint64_t random = 0;
    std::string failure;
};
machine m;

unsigned rnd(unsigned n) { /* 0 .. n-1 */
    m.random = m.random * 6364136223846793005u + 1442695040888963407u;
    return static_cast<unsigned>((m.random >> 33) % n);
}

template <class T> void shuffle(T *v, unsigned n) {
    for (unsigned i = n; i > 1; i--)
        std::swap(v[i - 1], v[rnd(i)]);
}

int16_t warp_of(const fiber *f) {
    return static_cast<int16_t>(f->id.thread.x / 32);
}

uint8_t &state_of(const fiber *f) {
    return m.state[f->id.thread.x];
}

/* Who runs next in the warp whose turn it is; NULL: its turn is over. */
fiber *next_fiber() {
    warp_turn &t = m.turn;
    for (;;) {
        while (t.next < 32) {
            unsigned lane = t.lane[t.next++];
            if (m.state[lane] != READY)
                continue;
            t.any = t.moved = true;
            return &m.fibers[lane];
        }
        if (!t.any || --t.rounds == 0)
            return nullptr;
        t.any = false;
        t.next = 0;
    }
}

/* From where we are (NULL: the scheduler) to another fiber, or back to the scheduler. */
void go_on(fiber *from, fiber *to) {
    m.now = to;
#ifdef SHIM_ASAN
    bool dies = from && state_of(from) == DONE;
    __sanitizer_start_switch_fiber(dies   ? nullptr
                                   : from ? &from->asan_fake
                                          : &m.asan_fake,
        to ? to->stack : m.asan_stack, to ? stack_bytes : m.asan_stack_bytes);
#endif
    context_switch(from ? from->ctx : m.scheduler, to ? to->ctx : m.scheduler);
#ifdef SHIM_ASAN
    __sanitizer_finish_switch_fiber(from ? from->asan_fake : m.asan_fake, nullptr, nullptr);
#endif
}

/* Until the fiber is ready and its turn comes. */
void yield_turn() {
    go_on(m.now, m.failure.empty() ? next_fiber() : nullptr);
}

void release_barrier() {
    std::memset(m.state, READY, m.fibers.size()); /* all are at the barrier, or the last to come */
    m.at_barrier = 0;
    m.interval++;
    m.count->barriers++;
}

void fiber_main() {
#ifdef SHIM_ASAN
    const void *stack;
    size_t bytes;
    __sanitizer_finish_switch_fiber(nullptr, &stack, &bytes);
    if (!m.asan_stack) /* the first fiber of all comes from the scheduler */
        m.asan_stack = stack, m.asan_stack_bytes = bytes;
#endif
    m.kernel(m.args);
    if (!m.now->products.empty())
        fault("line %d: a wgmma is never waited for", m.now->products.front().line);
    state_of(m.now) = DONE;
    m.lives--;
    for (;;)
        yield_turn();
}

/* ---------------------------------------------------------------- bank conflicts of plain accesses
 */

/* 32 banks of 4 bytes. Lanes are served in groups of 128 bytes: 32, 16 or 8 lanes by the width of
 * the access. A group takes as many wavefronts as the fullest bank has different words. */
unsigned wavefronts(const uint32_t *address, uint32_t lanes, uint32_t bytes, unsigned *best) {
    unsigned per = 128 / std::max<uint32_t>(bytes, 4), all = 0;
    *best = 0;
    for (unsigned g = 0; g < 32; g += per) {
        uint32_t seen[32][32];
        unsigned words[32] = {}, most = 0; /* of each bank */
        for (unsigned l = g; l < g + per; l++) {
            if (!(lanes >> l & 1))
                continue;
            for (uint32_t a = address[l] / 4; a <= (address[l] + bytes - 1) / 4; a++) {
                uint32_t *bank = seen[a % 32];
                unsigned &n = words[a % 32];
                if (std::find(bank, bank + n, a) == bank + n)
                    bank[n++] = a;
                most = std::max(most, n);
            }
        }
        all += most;
        *best += most > 0;
    }
    return all;
}

void note_access(uint32_t address, uint32_t bytes, bool write, int line) {
    warp &w = m.warps[warp_of(m.now)];
    unsigned lane = m.now->id.thread.x % 32;
    site *s = nullptr;
    for (site &have : w.sites)
        if (have.line == line && have.bytes == bytes && have.write == write)
            s = &have;
    if (!s) {
        w.sites.push_back({line, bytes, write, {}, {}});
        s = &w.sites.back();
    }
    unsigned n = s->at[lane]++;
    if (n >= s->access.size())
        s->access.resize(n + 1);
    s->access[n].address[lane] = address;
    s->access[n].lanes |= 1u << lane;
}

void count_accesses() {
    for (warp &w : m.warps)
        for (site &s : w.sites)
            for (lane_accesses &a : s.access) {
                unsigned best, all = wavefronts(a.address, a.lanes, s.bytes, &best);
                m.count->shared_accesses += best;
                (s.write ? m.count->write_conflicts : m.count->bank_conflicts) += all - best;
            }
}

/* ---------------------------------------------------------------- shared memory */

size_t shared_at(uint32_t address, uint32_t bytes, uint32_t align, int line) {
    if (address < shared_base || static_cast<size_t>(address) - shared_base + bytes > m.shared.size())
        fault("line %d: shared memory: %u bytes at %d of %zu", line, bytes, static_cast<int>(address - shared_base),
            m.shared.size());
    if (address % align)
        fault("line %d: shared memory: address %u is not a multiple of %u", line, address - shared_base, align);
    return address - shared_base;
}

void words_read(size_t at, uint32_t bytes, int line) {
    int16_t me = warp_of(m.now);
    for (size_t i = at / 4; i < (at + bytes + 3) / 4; i++) {
        word &w = m.words[i];
        if (w.state == UNWRITTEN)
            fault("line %d: shared memory: byte %zu is read and was never written", line, i * 4);
        if (w.state == PENDING)
            fault("line %d: shared memory: byte %zu is read while a cp.async to it is in flight", line, i * 4);
        if (w.written == m.interval && w.writer != me)
            fault("line %d: race: shared byte %zu is read by warp %d, written by warp %d, no "
                  "barrier between",
                line, i * 4, me, w.writer);
        w.reader = w.read == m.interval && w.reader != me ? several : me;
        w.read = m.interval;
    }
}

void words_write(size_t at, uint32_t bytes, word_state state, int line) {
    int16_t me = warp_of(m.now);
    for (size_t i = at / 4; i < (at + bytes + 3) / 4; i++) {
        word &w = m.words[i];
        if (w.state == PENDING)
            fault("line %d: shared memory: byte %zu is written while a cp.async to it is in flight", line, i * 4);
        if (w.read == m.interval && w.reader != me)
            fault("line %d: race: shared byte %zu is overwritten by warp %d, read by %s, no "
                  "barrier between",
                line, i * 4, me, "another warp");
        if (w.written == m.interval && w.writer != me)
            fault("line %d: race: shared byte %zu is written by warps %d and %d, no barrier between", line, i * 4, me,
                w.writer);
        w.state = state;
        w.writer = me;
        w.written = m.interval;
        w.thread = static_cast<uint16_t>(m.now->id.thread.x);
        w.write = m.now->writes;
    }
    m.now->writes++;
}

void finish_copy(const copy &c) {
    std::memcpy(m.shared.data() + c.to, c.from, c.bytes);
    for (size_t i = c.to / 4; i < (c.to + c.bytes) / 4; i++) {
        m.words[i].state = WRITTEN;
        m.words[i].written = m.interval; /* others see it after the next barrier */
        m.words[i].write = m.now->writes;
    }
    m.now->writes++;
}

/* ---------------------------------------------------------------- running a block */

void start_block(dim3 block) {
    m.lives = static_cast<unsigned>(m.fibers.size());
    m.at_barrier = 0;
    m.interval = 1;
    std::fill(m.shared.begin(), m.shared.end(), 0x7f);
    std::fill(m.words.begin(), m.words.end(), word());
    for (warp &w : m.warps) {
        w.waiting = 0;
        for (site &s : w.sites) { /* kept: the next block is at the same places */
            std::fill(s.at, s.at + 32, 0);
            s.access.clear();
        }
    }
    std::memset(m.state, READY, sizeof m.state);
    unsigned t = 0;
    for (fiber &f : m.fibers) {
        f.id.thread = {t++, 0, 0};
        f.id.block = block;
        f.copies.clear();
        f.groups.clear();
        f.open = 0;
        f.products.clear();
        f.writes = f.published = 0;
        f.moved = true;
#ifdef SHIM_ASAN
        ASAN_UNPOISON_MEMORY_REGION(f.stack, stack_bytes);
        f.asan_fake = nullptr;
#endif
        context_make(f.ctx, f.stack, fiber_main);
    }
}

/* Lanes of one warp in a shuffled order, for a random while. Whether any of them moved. */
bool run_warp(unsigned w) {
    warp_turn &t = m.turn;
    for (unsigned i = 0; i < 32; i++)
        t.lane[i] = w * 32 + i;
    shuffle(t.lane, 32);
    t.next = 0;
    t.rounds = 1 + rnd(64);
    t.any = t.moved = false;
    if (fiber *first = next_fiber())
        go_on(nullptr, first);
    return t.moved && m.failure.empty();
}

void explain_deadlock() {
    unsigned op = 0, barrier = 0, done = 0;
    int op_line = 0;
    for (fiber &f : m.fibers) {
        fiber_state state = static_cast<fiber_state>(state_of(&f));
        op += state == IN_WARP_OP;
        barrier += state == AT_BARRIER;
        done += state == DONE;
        if (state == IN_WARP_OP)
            op_line = f.line;
    }
    char text[200];
    std::snprintf(text, sizeof text,
        "divergence: %u threads wait in a warp-wide operation (line %d), %u at a barrier (line "
        "%d), %u have returned",
        op, op_line, barrier, m.barrier_line, done);
    m.failure = text;
}

void run_block(dim3 block) {
    start_block(block);
    std::vector<unsigned> order(m.warps.size());
    for (unsigned i = 0; i < order.size(); i++)
        order[i] = i;
    while (m.lives && m.failure.empty()) {
        shuffle(order.data(), static_cast<unsigned>(order.size()));
        bool moved = false;
        for (unsigned w : order)
            if (m.failure.empty())
                moved |= run_warp(w);
        if (!moved && m.lives && m.failure.empty())
            explain_deadlock();
    }
    m.count->blocks++;
    count_accesses();
}

void make_fibers(unsigned threads) {
    static std::vector<uint8_t *> stacks; /* kept: mapping them anew for each launch costs more than the launch */
    while (stacks.size() < threads) {
        void *p = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            std::abort();
        stacks.push_back(static_cast<uint8_t *>(p));
    }
    m.fibers.resize(threads);
    for (unsigned i = 0; i < threads; i++)
        m.fibers[i].stack = stacks[i];
    m.warps.assign(threads / 32, warp());
}

} // namespace

/* ---------------------------------------------------------------- what kernels call */

const ids &self() {
    return m.now->id;
}

void fault(const char *format, ...) {
    char text[300];
    va_list ap;
    va_start(ap, format);
    std::vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    const ids &id = m.now->id;
    char where[100];
    std::snprintf(where, sizeof where, " (block %u,%u,%u thread %u)", id.block.x, id.block.y, id.block.z, id.thread.x);
    m.failure = std::string(text) + where;
    for (;;)
        yield_turn();
}

void warp_op(const char *name, int line, const void *in, void *out, void (*fn)(warp_call &)) {
    fiber *f = m.now;
    warp &w = m.warps[warp_of(f)];
    if (w.waiting && (w.line != line || w.name != name))
        fault("divergence: a lane is in %s (line %d) while others are in %s (line %d)", name, line, w.name, w.line);
    w.name = name;
    w.line = line;
    unsigned lane = f->id.thread.x % 32;
    w.call.in[lane] = in;
    w.call.out[lane] = out;
    if (++w.waiting < 32) {
        state_of(f) = IN_WARP_OP;
        f->line = line;
        yield_turn();
        return;
    }
    w.waiting = 0;
    fn(w.call);
    std::memset(m.state + warp_of(f) * 32, READY, 32);
}

void barrier(int line) {
    fiber *f = m.now;
    if (m.at_barrier && m.barrier_line != line)
        fault("divergence: a thread is at the barrier of line %d while others are at line %d", line, m.barrier_line);
    m.barrier_line = line;
    state_of(f) = AT_BARRIER;
    if (++m.at_barrier == m.fibers.size())
        release_barrier();
    else
        yield_turn();
}

void shared_read(uint32_t address, void *to, uint32_t bytes, int line) {
    size_t at = shared_at(address, bytes, bytes, line);
    words_read(at, bytes, line);
    note_access(address, bytes, false, line);
    std::memcpy(to, m.shared.data() + at, bytes);
}

void shared_write(uint32_t address, const void *from, uint32_t bytes, int line) {
    size_t at = shared_at(address, bytes, bytes, line);
    words_write(at, bytes, WRITTEN, line);
    note_access(address, bytes, true, line);
    std::memcpy(m.shared.data() + at, from, bytes);
}

void shared_rows(const uint32_t (&address)[8], uint8_t (&to)[8][16], int line) {
    uint32_t used[8] = {};
    unsigned most = 1;
    for (int r = 0; r < 8; r++) {
        size_t at = shared_at(address[r], 16, 16, line);
        words_read(at, 16, line);
        std::memcpy(to[r], m.shared.data() + at, 16);
        bool again = false;
        for (int q = 0; q < r; q++)
            again |= address[q] == address[r];
        if (!again)
            most = std::max(most, ++used[at / 16 % 8]);
    }
    m.count->ldmatrix++;
    m.count->shared_accesses++;
    m.count->bank_conflicts += most - 1;
}

void async_copy(uint32_t to, const void *from, uint32_t bytes, int line) {
    size_t at = shared_at(to, bytes, bytes, line);
    if (reinterpret_cast<uintptr_t>(from) % bytes)
        fault("line %d: cp.async: the source is not a multiple of %u", line, bytes);
    global_read(from, bytes, line);
    m.count->load_bytes -= bytes;
    m.count->async_bytes += bytes;
    words_write(at, bytes, PENDING, line);
    std::memset(m.shared.data() + at, 0x7f, bytes);
    m.now->copies.push_back({static_cast<uint32_t>(at), bytes, from});
    m.now->open++;
}

void async_commit() {
    m.now->groups.push_back(m.now->open);
    m.now->open = 0;
}

void async_wait(unsigned pending) {
    fiber *f = m.now;
    while (f->groups.size() > pending) {
        auto end = f->copies.begin() + static_cast<std::ptrdiff_t>(f->groups.front());
        std::for_each(f->copies.begin(), end, finish_copy);
        f->copies.erase(f->copies.begin(), end);
        f->groups.erase(f->groups.begin());
    }
}

/* ---------------------------------------------------------------- warpgroups */

void registers_moved() {
    m.now->moved = true;
}

void registers_fence() {
    m.now->moved = false;
}

void publish() {
    m.now->published = m.now->writes;
}

void shared_matrix(uint64_t rows, uint8_t (&to)[128][32], int line) {
    const uint32_t start = (rows & 0x3fff) << 4, groups = (rows >> 32 & 0x3fff) << 4;
    const unsigned kind = rows >> 62; /* of swizzle: over 128, 64 bytes */
    if (kind != 1 && kind != 2)
        fault("line %d: wgmma: swizzle %u is not emulated", line, kind);
    const uint32_t width = kind == 1 ? 128 : 64;
    for (uint32_t r = 0; r < 128; r++)
        for (uint32_t piece = 0; piece < 2; piece++) {
            uint32_t address = start + r / 8 * groups + r % 8 * width + piece * 16;
            address ^= (address >> 7 & (width / 16 - 1)) << 4;
            size_t at = shared_at(address, 16, 16, line);
            words_read(at, 16, line);
            for (size_t i = at / 4; i < at / 4 + 4; i++)
                if (m.words[i].write >= m.fibers[m.words[i].thread].published)
                    fault("line %d: wgmma: shared byte %zu is not published to it", line, i * 4);
            std::memcpy(to[r] + piece * 16, m.shared.data() + at, 16);
        }
}

void product_begin(const product &p) {
    if (m.now->moved)
        fault("line %d: wgmma: no fence since its registers were written", p.line);
    if (m.now->id.thread.x % 32 == 0) { /* the warp's other lanes would see the same */
        uint8_t rows[128][32];
        shared_matrix(p.rows, rows, p.line);
    }
    m.now->products.push_back(p);
}

void product_commit() {
    for (product &p : m.now->products)
        p.committed = true;
}

void product_wait(int line) {
    auto &mine = m.now->products;
    warp_op("wgmma.wait_group", line, &mine, nullptr, [](warp_call &w) {
        const auto of = [&](int l) { return static_cast<const std::vector<product> *>(w.in[l]); };
        for (size_t i = 0; i < of(0)->size(); i++) {
            const product *lanes[32];
            for (int l = 0; l < 32; l++) {
                if (of(l)->size() <= i || (*of(l))[i].run != (*of(0))[i].run || (*of(l))[i].rows != (*of(0))[i].rows)
                    fault("divergence: lanes of a warp begin different wgmmas");
                lanes[l] = &(*of(l))[i];
            }
            if (lanes[0]->committed)
                lanes[0]->run(lanes);
        }
    });
    mine.erase(std::remove_if(mine.begin(), mine.end(), [](const product &p) { return p.committed; }), mine.end());
    m.now->moved = true;
}

static bool allowed(const void *p, size_t bytes, bool write) {
    uintptr_t a = reinterpret_cast<uintptr_t>(p);
    for (const region &r : m.how->regions) {
        uintptr_t b = reinterpret_cast<uintptr_t>(r.begin);
        if (a >= b && bytes <= r.bytes && a - b <= r.bytes - bytes)
            return !write || r.writable;
    }
    return m.how->regions.empty();
}

void global_read(const void *p, size_t bytes, int line) {
    if (!allowed(p, bytes, false))
        fault("line %d: global memory: %zu bytes are read at %p, which the launch may not touch", line, bytes, p);
    m.count->load_bytes += bytes;
}

void global_write(const void *p, size_t bytes, int line) {
    if (!allowed(p, bytes, true))
        fault("line %d: global memory: %zu bytes are written at %p, which the launch may not touch", line, bytes, p);
    m.count->store_bytes += bytes;
}

void count_mma(uint64_t flops) {
    m.count->mma++;
    m.count->mma_flops += flops;
}

std::string launch(kernel_fn kernel, const void *args, dim3 grid, dim3 block, size_t shared_bytes, const options &how,
    counters *total) {
    if (!grid.x || !grid.y || !grid.z || !block.x || block.x % 32 || block.x > 1024 || block.y != 1 || block.z != 1)
        return "launch: the grid is empty or the block is not a row of whole warps";
    make_fibers(block.x);
    grid_dim = grid;
    block_dim = block;
    m.kernel = kernel;
    m.args = args;
    m.how = &how;
    m.none = counters();
    m.count = total ? total : &m.none;
    m.random = how.seed * 0x9e3779b97f4a7c15u + 1;
    m.failure.clear();
    m.shared.resize(shared_bytes);
    m.words.resize((shared_bytes + 3) / 4);
    std::vector<uint64_t> order(static_cast<uint64_t>(grid.x) * grid.y * grid.z);
    for (uint64_t i = 0; i < order.size(); i++)
        order[i] = i;
    shuffle(order.data(), static_cast<unsigned>(order.size()));
    for (uint64_t b : order) {
        run_block({static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
            static_cast<unsigned>(b / grid.x / grid.y)});
        if (!m.failure.empty())
            break;
    }
    return m.failure;
}

} // namespace shim
