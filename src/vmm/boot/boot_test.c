/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm/boot/boot.h"

#include <elf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "spec/boot_defs.h"

#define RAM_SIZE   (64 * MIB)
#define KERNEL_MAX (256 * KIB)

struct fixture {
    uint8_t *ram;
    struct gmem *mem;
    struct layout layout;
    struct boot_file kernel, initrd;
    struct boot_req req;
    struct boot_state state;
    struct err err;
    uint8_t file[KERNEL_MAX];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    f->mem = gmem_new();
    assert_int_equal(gmem_add(f->mem, GPA(0), RAM_SIZE, f->ram, true), 0);
    assert_int_equal(layout_init(&f->layout, RAM_SIZE, 40, &f->err), 0);
    f->kernel.fd = f->initrd.fd = -1;
    f->req = (struct boot_req){ .mem = f->mem,
                                .layout = &f->layout,
                                .kernel = &f->kernel,
                                .cmdline = "console=ttyS0 a=b",
                                .rsdp = LAYOUT_RSDP };
    memset(f->req.seed, 0xa5, sizeof(f->req.seed));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    boot_file_close(&f->kernel);
    boot_file_close(&f->initrd);
    gmem_free(f->mem);
    munmap(f->ram, RAM_SIZE);
    free(f);
    return 0;
}

static void make_file(struct boot_file *file, const char *name, const void *buf, size_t len)
{
    boot_file_close(file);
    *file = (struct boot_file){ .fd = memfd_create("boot_test", MFD_CLOEXEC),
                                .name = name,
                                .size = len };
    assert_int_equal(write(file->fd, buf, len), len);
}

static void make_initrd(struct fixture *f, uint64_t size)
{
    make_file(&f->initrd, "initrd.img", "INITRD", 6);
    assert_int_equal(ftruncate(f->initrd.fd, (off_t)size), 0);
    f->initrd.size = size;
    f->req.initrd = &f->initrd;
}

/* Loads f->file[0, len); the result must be `rc` with `text` in the message. */
static void load(struct fixture *f, size_t len, int rc, const char *text)
{
    make_file(&f->kernel, "vmlinuz", f->file, len);
    err_clear(&f->err);
    int got = boot_load(&f->req, &f->state, &f->err);
    if (got != rc || (text != NULL && strstr(f->err.msg, text) == NULL)) {
        print_error("result %d, message '%s'\n", got, f->err.msg);
    }
    assert_int_equal(got, rc);
    if (text != NULL) {
        assert_non_null(strstr(f->err.msg, text));
    }
}

#define BZ_SETUP (2 * 512)
#define BZ_CODE  0x1000
#define BZ_LEN   (BZ_SETUP + BZ_CODE)

static void make_bzimage(struct fixture *f)
{
    uint8_t *h = f->file;
    memset(h, 0, sizeof(f->file));
    h[BOOT_HDR_SETUP_SECTS] = 1;
    le32_put(h + BOOT_HDR_SYSSIZE, BZ_CODE / 16);
    le16_put(h + BOOT_HDR_BOOT_FLAG, 0xaa55);
    h[0x200] = 0xeb;
    h[BOOT_HDR_JUMP_LEN] = 0x6a;
    memcpy(h + BOOT_HDR_MAGIC, "HdrS", 4);
    le16_put(h + BOOT_HDR_VERSION, 0x020f);
    h[BOOT_HDR_LOADFLAGS] = 1;
    le32_put(h + BOOT_HDR_RD_MAX, 0x7fffffff);
    le32_put(h + BOOT_HDR_ALIGN, 0x200000);
    h[BOOT_HDR_RELOCATABLE] = 1;
    le16_put(h + BOOT_HDR_XLOADFLAGS, 1);
    le32_put(h + BOOT_HDR_CMDLINE_SIZE, 2047);
    le64_put(h + BOOT_HDR_PREF_ADDRESS, 16 * MIB);
    le32_put(h + BOOT_HDR_INIT_SIZE, 8 * MIB);
    memset(h + BZ_SETUP, 0x90, BZ_CODE);
}

static void bzimage_is_loaded_with_its_zero_page(void **state)
{
    struct fixture *f = *state;
    make_bzimage(f);
    make_initrd(f, 5000);
    load(f, BZ_LEN, 0, NULL);
    assert_int_equal(f->state.mode, BOOT_MODE_LONG64);
    assert_int_equal(f->state.entry, 16 * MIB + 0x200);
    assert_int_equal(f->state.rsi, LAYOUT_ZERO_PAGE);
    assert_memory_equal(f->ram + 16 * MIB, f->file + BZ_SETUP, BZ_CODE);

    const uint8_t *zp = f->ram + LAYOUT_ZERO_PAGE;
    assert_int_equal(le64_get(zp + BOOT_ZP_RSDP), LAYOUT_RSDP);
    assert_int_equal(zp[BOOT_HDR_LOADER], 0xff);
    assert_int_equal(le16_get(zp + BOOT_HDR_VERSION), 0x020f);
    assert_string_equal(f->ram + le32_get(zp + BOOT_HDR_CMDLINE), f->req.cmdline);
    uint32_t rd = le32_get(zp + BOOT_HDR_RD_IMAGE);
    assert_int_equal(rd, RAM_SIZE - 8192); /* the highest page border that leaves 5000 bytes */
    assert_int_equal(le32_get(zp + BOOT_HDR_RD_SIZE), 5000);
    assert_memory_equal(f->ram + rd, "INITRD", 6);

    assert_int_equal(zp[BOOT_ZP_E820_COUNT], 6);
    const uint8_t *e = zp + BOOT_ZP_E820;
    assert_int_equal(le64_get(e), 0);
    assert_int_equal(le64_get(e + 8), LAYOUT_CONV_RAM_END);
    assert_int_equal(le32_get(e + 16), BOOT_E820_RAM);
    assert_int_equal(le64_get(e + 3 * 20), MIB);
    assert_int_equal(le64_get(e + 3 * 20 + 8), RAM_SIZE - MIB);

    const uint8_t *seed = f->ram + le64_get(zp + BOOT_HDR_SETUP_DATA);
    assert_int_equal(le64_get(seed), 0);
    assert_int_equal(le32_get(seed + 8), BOOT_SETUP_RNG_SEED);
    assert_int_equal(le32_get(seed + 12), BOOT_SEED_LEN);
    assert_memory_equal(seed + 16, f->req.seed, BOOT_SEED_LEN);
}

static void bzimage_gets_identity_page_tables_and_gdt(void **state)
{
    struct fixture *f = *state;
    make_bzimage(f);
    load(f, BZ_LEN, 0, NULL);
    assert_int_equal(le64_get(f->ram + LAYOUT_BOOT_PML4), LAYOUT_BOOT_PDPT | 3);
    for (uint64_t gpa = 0; gpa < 4 * GIB; gpa += 2 * MIB) {
        uint64_t pd = le64_get(f->ram + LAYOUT_BOOT_PDPT + gpa / GIB * 8);
        assert_int_equal(pd & 0xfff, 3);
        uint64_t pte = le64_get(f->ram + (pd & ~UINT64_C(0xfff)) + gpa % GIB / (2 * MIB) * 8);
        assert_int_equal(pte, gpa | 0x83);
    }
    assert_int_equal(le64_get(f->ram + LAYOUT_BOOT_PML4 + 8), 0);
    assert_int_equal(le64_get(f->ram + LAYOUT_BOOT_GDT + LAYOUT_BOOT_CS), 0x00af9b000000ffff);
    assert_int_equal(le64_get(f->ram + LAYOUT_BOOT_GDT + LAYOUT_BOOT_DS), 0x00cf93000000ffff);
}

static void bzimage_moves_down_when_memory_is_small(void **state)
{
    struct fixture *f = *state;
    make_bzimage(f);
    assert_int_equal(layout_init(&f->layout, 12 * MIB, 40, &f->err), 0);
    load(f, BZ_LEN, 0, NULL);
    assert_int_equal(f->state.entry, 2 * MIB + 0x200);
    f->file[BOOT_HDR_RELOCATABLE] = 0;
    load(f, BZ_LEN, -ENOSPC, "needs 8192 KiB at 0x1000000");
    f->file[BOOT_HDR_RELOCATABLE] = 1;
    assert_int_equal(layout_init(&f->layout, 8 * MIB, 40, &f->err), 0);
    load(f, BZ_LEN, -ENOSPC, "ends at 0x800000 (8 MiB)");
}

static void bzimage_without_64_bit_entry_starts_in_protected_mode(void **state)
{
    struct fixture *f = *state;
    make_bzimage(f);
    le16_put(f->file + BOOT_HDR_XLOADFLAGS, 4);
    load(f, BZ_LEN, 0, NULL);
    assert_int_equal(f->state.mode, BOOT_MODE_PROT32);
    assert_int_equal(f->state.entry, 16 * MIB);
    assert_int_equal(f->state.rsi, LAYOUT_ZERO_PAGE);
    assert_int_equal(f->state.rbx, 0);
    assert_int_equal(le32_get(f->ram + LAYOUT_ZERO_PAGE + BOOT_HDR_CMDLINE), LAYOUT_CMDLINE);
    assert_int_equal(le64_get(f->ram + LAYOUT_BOOT_PML4), 0);
    assert_int_equal(le64_get(f->ram + LAYOUT_BOOT_GDT + LAYOUT_BOOT_CS), 0x00cf9b000000ffff);
}

static void bzimage_errors_name_the_fault(void **state)
{
    struct fixture *f = *state;
    make_bzimage(f);
    load(f, BZ_LEN - 100, -EINVAL, "truncated");
    load(f, 0x240, -EINVAL, "truncated");
    le16_put(f->file + BOOT_HDR_VERSION, 0x0206);
    load(f, BZ_LEN, -EINVAL, "boot protocol 2.06");
    make_bzimage(f);
    f->file[BOOT_HDR_LOADFLAGS] = 0;
    load(f, BZ_LEN, -EINVAL, "zImage");
    make_bzimage(f);
    f->file[BOOT_HDR_JUMP_LEN] = 0x10;
    load(f, BZ_LEN, -EINVAL, "setup header");
    make_bzimage(f);
    le32_put(f->file + BOOT_HDR_SYSSIZE, 0xffffffff);
    load(f, BZ_LEN, -EINVAL, "truncated");
    make_bzimage(f);
    le64_put(f->file + BOOT_HDR_PREF_ADDRESS, UINT64_MAX - 5);
    le32_put(f->file + BOOT_HDR_ALIGN, 3);
    load(f, BZ_LEN, -EINVAL, "alignment");
    make_bzimage(f);
    le32_put(f->file + BOOT_HDR_CMDLINE_SIZE, 10);
    load(f, BZ_LEN, -EINVAL, "has 17 characters; 'vmlinuz' takes at most 10");
}

static void an_initrd_that_does_not_fit_is_refused_with_sizes(void **state)
{
    struct fixture *f = *state;
    make_bzimage(f);
    make_initrd(f, 41 * MIB);
    load(f, BZ_LEN, -ENOSPC, "has 41984 KiB, and the guest's memory has room for 40960 KiB");
    make_initrd(f, 40 * MIB);
    load(f, BZ_LEN, 0, NULL);
    /* initrd_addr_max is the highest address of its last byte. */
    le32_put(f->file + BOOT_HDR_RD_MAX, 32 * MIB - 1);
    make_initrd(f, MIB);
    load(f, BZ_LEN, 0, NULL);
    assert_int_equal(le32_get(f->ram + LAYOUT_ZERO_PAGE + BOOT_HDR_RD_IMAGE), 31 * MIB);
}

/* A 64-bit ELF with one PT_LOAD of 0x100 bytes at `paddr` and one PT_NOTE. */
static size_t make_pvh(struct fixture *f, uint64_t paddr, uint32_t note_type)
{
    memset(f->file, 0, sizeof(f->file));
    Elf64_Ehdr h = {
        .e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, 1},
        .e_machine = EM_X86_64,
        .e_entry = 0xffffffff81000000,
        .e_phoff = 64,
        .e_phentsize = sizeof(Elf64_Phdr),
        .e_phnum = 2
    };
    Elf64_Phdr ph[2] = {
        {.p_type = PT_LOAD,
         .p_offset = 0x200,
         .p_paddr = paddr,
         .p_filesz = 0x100,
         .p_memsz = 0x1000 },
        { .p_type = PT_NOTE, .p_offset = 0x180, .p_filesz = 0x40},
    };
    memcpy(f->file, &h, sizeof(h));
    memcpy(f->file + 64, ph, sizeof(ph));
    uint8_t *n = f->file + 0x180;
    /* First a note of someone else with an odd-sized name. */
    le32_put(n, 5);
    le32_put(n + 4, 4);
    le32_put(n + 8, note_type);
    memcpy(n + 12, "Fred", 5);
    n += 12 + 8 + 4;
    le32_put(n, 4);
    le32_put(n + 4, 8);
    le32_put(n + 8, note_type);
    memcpy(n + 12, "Xen", 4);
    le64_put(n + 16, paddr + 0x40);
    memset(f->file + 0x200, 0x77, 0x100);
    return 0x300;
}

static void pvh_elf_is_loaded_with_its_start_info(void **state)
{
    struct fixture *f = *state;
    size_t len = make_pvh(f, 2 * MIB, BOOT_XEN_NOTE_PHYS32_ENTRY);
    make_initrd(f, 5000);
    memset(f->ram + 2 * MIB, 0xee, 0x2000);
    load(f, len, 0, NULL);
    assert_int_equal(f->state.mode, BOOT_MODE_PROT32);
    assert_int_equal(f->state.entry, 2 * MIB + 0x40);
    assert_int_equal(f->state.rbx, LAYOUT_PVH_INFO);
    assert_memory_equal(f->ram + 2 * MIB, f->file + 0x200, 0x100);
    assert_int_equal(f->ram[2 * MIB + 0x100], 0); /* the rest of memsz is cleared, and no more */
    assert_int_equal(f->ram[2 * MIB + 0xfff], 0);
    assert_int_equal(f->ram[2 * MIB + 0x1000], 0xee);

    struct boot_pvh_info info;
    memcpy(&info, f->ram + LAYOUT_PVH_INFO, sizeof(info));
    assert_int_equal(info.magic, BOOT_PVH_MAGIC);
    assert_int_equal(info.version, 1);
    assert_int_equal(info.rsdp_paddr, LAYOUT_RSDP);
    assert_string_equal(f->ram + info.cmdline_paddr, f->req.cmdline);
    assert_int_equal(info.nr_modules, 1);
    struct boot_pvh_module m;
    memcpy(&m, f->ram + info.modlist_paddr, sizeof(m));
    assert_int_equal(m.size, 5000);
    assert_memory_equal(f->ram + m.paddr, "INITRD", 6);
    assert_int_equal(info.memmap_entries, 6);
    struct boot_pvh_mem mm;
    memcpy(&mm, f->ram + info.memmap_paddr + 3 * sizeof(mm), sizeof(mm));
    assert_int_equal(mm.addr, MIB);
    assert_int_equal(mm.size, RAM_SIZE - MIB);
}

static void elf_errors_name_the_fault(void **state)
{
    struct fixture *f = *state;
    size_t len = make_pvh(f, 2 * MIB, 17);
    load(f, len, -EINVAL, "without a PVH note");
    len = make_pvh(f, RAM_SIZE, BOOT_XEN_NOTE_PHYS32_ENTRY);
    load(f, len, -ENOSPC, "64 MiB");
    len = make_pvh(f, 0x8000, BOOT_XEN_NOTE_PHYS32_ENTRY);
    load(f, len, -EINVAL, "below 1 MiB");
    len = make_pvh(f, UINT64_MAX - 8, BOOT_XEN_NOTE_PHYS32_ENTRY);
    load(f, len, -ENOSPC, "a segment");
    len = make_pvh(f, 2 * MIB, BOOT_XEN_NOTE_PHYS32_ENTRY);
    load(f, 0x280, -EINVAL, "truncated");
    Elf64_Phdr *ph = (void *)(f->file + 64);
    ph->p_filesz = 0x2000;
    load(f, len, -EINVAL, "only 4096 in memory");
    make_pvh(f, 2 * MIB, BOOT_XEN_NOTE_PHYS32_ENTRY);
    ((Elf64_Ehdr *)(void *)f->file)->e_phoff = UINT64_MAX - 10;
    load(f, len, -EINVAL, "ELF");
}

/* A flat multiboot image: header at 0x20, loaded at 1 MiB by its address fields. */
static size_t make_kludge(struct fixture *f, uint32_t flags)
{
    memset(f->file, 0x66, 0x400);
    struct boot_mb_header h = { .magic = BOOT_MB_HEADER_MAGIC,
                                .flags = flags | BOOT_MB_F_ADDRESSES,
                                .header_addr = 0x100020,
                                .load_addr = 0x100000,
                                .load_end_addr = 0x100300,
                                .bss_end_addr = 0x101000,
                                .entry_addr = 0x100100 };
    h.checksum = 0u - h.magic - h.flags;
    memcpy(f->file + 0x20, &h, sizeof(h));
    return 0x400;
}

static void multiboot_by_addresses(void **state)
{
    struct fixture *f = *state;
    size_t len = make_kludge(f, BOOT_MB_F_PAGE_ALIGN | BOOT_MB_F_MEMORY);
    make_initrd(f, 5000);
    memset(f->ram + MIB, 0xee, 0x2000);
    load(f, len, 0, NULL);
    assert_int_equal(f->state.mode, BOOT_MODE_PROT32);
    assert_int_equal(f->state.entry, 0x100100);
    assert_int_equal(f->state.rax, BOOT_MB_LOADER_MAGIC);
    assert_memory_equal(f->ram + MIB, f->file, 0x300);
    assert_int_equal(f->ram[MIB + 0x300], 0);
    assert_int_equal(f->ram[MIB + 0x1000], 0xee);
    struct boot_mb_info info;
    memcpy(&info, f->ram + f->state.rbx, sizeof(info));
    assert_int_equal(info.flags, 0x24d);
    assert_int_equal(info.mem_lower, 639);
    assert_int_equal(info.mem_upper, 63 * 1024);
    assert_string_equal(f->ram + info.cmdline, f->req.cmdline);
    assert_int_equal(info.mods_count, 1);
    struct boot_mb_module m;
    memcpy(&m, f->ram + info.mods_addr, sizeof(m));
    assert_int_equal(m.end - m.start, 5000);
    assert_int_equal(m.start % 4096, 0);
    assert_string_equal(f->ram + m.string, "initrd.img");
    assert_int_equal(info.mmap_length, 6 * 24);
    assert_int_equal(le32_get(f->ram + info.mmap_addr), 20);
    assert_int_equal(le64_get(f->ram + info.mmap_addr + 3 * 24 + 4), MIB);
}

static void multiboot_elf_enters_at_the_physical_address(void **state)
{
    struct fixture *f = *state;
    memset(f->file, 0, sizeof(f->file));
    Elf32_Ehdr h = {
        .e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, 1},
        .e_machine = EM_386,
        .e_entry = 0xc0200010,
        .e_phoff = 52,
        .e_phentsize = sizeof(Elf32_Phdr),
        .e_phnum = 1
    };
    Elf32_Phdr ph = { .p_type = PT_LOAD,
                      .p_offset = 0x100,
                      .p_vaddr = 0xc0200000,
                      .p_paddr = 0x200000,
                      .p_filesz = 0x100,
                      .p_memsz = 0x100 };
    memcpy(f->file, &h, sizeof(h));
    memcpy(f->file + 52, &ph, sizeof(ph));
    le32_put(f->file + 0x100, BOOT_MB_HEADER_MAGIC);
    le32_put(f->file + 0x108, 0u - BOOT_MB_HEADER_MAGIC);
    load(f, 0x200, 0, NULL);
    assert_int_equal(f->state.entry, 0x200010);
    assert_int_equal(le32_get(f->ram + 0x200000), BOOT_MB_HEADER_MAGIC);
}

static void multiboot_errors_name_the_fault(void **state)
{
    struct fixture *f = *state;
    size_t len = make_kludge(f, 4);
    load(f, len, -EINVAL, "requires features 0x4");
    len = make_kludge(f, 0);
    f->file[0x28] ^= 1; /* checksum */
    load(f, len, -EINVAL, "is not a kernel");
    len = make_kludge(f, 0);
    le32_put(f->file + 0x20 + 16, 0x100021); /* load_addr behind the header */
    load(f, len, -EINVAL, "load address");
    len = make_kludge(f, 0);
    le32_put(f->file + 0x20 + 20, 0x200000); /* load_end_addr behind the file */
    load(f, len, -EINVAL, "the file ends at");
    len = make_kludge(f, 0);
    le32_put(f->file + 0x20 + 24, 0x100001); /* bss end inside */
    load(f, len, -EINVAL, "bss");
    len = make_kludge(f, 0);
    le32_put(f->file + 0x20 + 28, 0xfffffff0); /* entry */
    load(f, len, -ENOSPC, "entry point");
}

static void memory_above_4_gib_is_in_the_map(void **state)
{
    struct fixture *f = *state;
    struct boot_range map[BOOT_MAX_MAP];
    assert_int_equal(layout_init(&f->layout, 3 * GIB, 40, &f->err), 0);
    unsigned n = boot_map(&f->req, map);
    assert_int_equal(n, 7);
    assert_int_equal(map[3].base + map[3].size, 2 * GIB);
    assert_int_equal(map[n - 1].base, 4 * GIB);
    assert_int_equal(map[n - 1].size, GIB);
    assert_int_equal(map[n - 1].type, BOOT_E820_RAM);
    for (unsigned i = 1; i < n; i++) { /* sorted, nothing overlaps */
        assert_true(map[i - 1].base + map[i - 1].size <= map[i].base);
    }
}

static void files_that_are_no_kernels(void **state)
{
    struct fixture *f = *state;
    struct boot_file file;
    assert_int_equal(boot_file_open("/nonexistent/vmlinuz", &file, &f->err), -ENOENT);
    assert_non_null(strstr(f->err.msg, "/nonexistent/vmlinuz"));
    assert_int_equal(boot_file_open("/", &file, &f->err), -EISDIR);
    assert_int_equal(boot_file_open("/dev/null", &file, &f->err), -EINVAL);
    memset(f->file, 'x', 100);
    load(f, 100, -EINVAL, "is not a kernel");
    load(f, 1, -EINVAL, "is not a kernel");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(bzimage_is_loaded_with_its_zero_page),
        T(bzimage_gets_identity_page_tables_and_gdt),
        T(bzimage_moves_down_when_memory_is_small),
        T(bzimage_without_64_bit_entry_starts_in_protected_mode),
        T(bzimage_errors_name_the_fault),
        T(an_initrd_that_does_not_fit_is_refused_with_sizes),
        T(pvh_elf_is_loaded_with_its_start_info),
        T(elf_errors_name_the_fault),
        T(multiboot_by_addresses),
        T(multiboot_elf_enters_at_the_physical_address),
        T(multiboot_errors_name_the_fault),
        T(memory_above_4_gib_is_in_the_map),
        T(files_that_are_no_kernels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
