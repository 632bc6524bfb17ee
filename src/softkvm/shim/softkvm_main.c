/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * softkvm CMD [ARG...]: runs a KVM program on a machine without KVM.
 *
 * --virt-flag is for programs that look for VMX or SVM in CPUID by themselves (virtflag.h).
 *
 * It sets LD_PRELOAD to the shim and becomes CMD. What the shim cannot serve is refused here with
 * the reason: static programs (no dynamic linker to preload anything), set-uid programs (the
 * dynamic linker ignores LD_PRELOAD for them), other architectures.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHIM "softkvm-preload.so"

enum { EXIT_USAGE = 2, EXIT_REFUSED = 126, EXIT_NOT_FOUND = 127 };

static const char usage[] =
    "Usage: softkvm [--virt-flag] COMMAND [ARGUMENT...]\n\n"
    "Runs a program that uses /dev/kvm on a machine without virtualisation hardware:\n"
    "the KVM ioctls are answered in software. For example:\n\n"
    "    softkvm qemu-system-x86_64 -accel kvm -m 256 disk.img\n\n"
    "The program must be dynamically linked. Manual: softkvm(1).\n\n"
    "  --virt-flag  the program's own CPUID instructions report VMX or SVM: for programs\n"
    "               that do not even try to open /dev/kvm without (kvmtool)\n";

/* Finds CMD as a shell would. False: errno set. */
static bool find_program(const char *name, char path[PATH_MAX])
{
    if (strchr(name, '/') != NULL) {
        (void)snprintf(path, PATH_MAX, "%s", name);
        return access(path, X_OK) == 0;
    }
    const char *dirs = getenv("PATH");
    for (const char *p = dirs != NULL ? dirs : "/usr/bin:/bin"; *p != '\0';) {
        size_t n = strcspn(p, ":");
        (void)snprintf(path, PATH_MAX, "%.*s%s%s", (int)n, p, n > 0 ? "/" : "./", name);
        struct stat st;
        if (stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0) {
            return true;
        }
        p += n + (p[n] == ':');
    }
    errno = ENOENT;
    return false;
}

/* NULL when the program can be served, else why not. */
static const char *refuse(const char *path)
{
    Elf64_Ehdr eh;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return NULL; /* execute-only: let exec decide */
    }
    const char *why = NULL;
    ssize_t n = pread(fd, &eh, sizeof(eh), 0);
    if (n < (ssize_t)sizeof(eh) || memcmp(eh.e_ident, ELFMAG, SELFMAG) != 0) {
        close(fd);
        return NULL; /* a script: its interpreter inherits the shim */
    }
    if (fstat(fd, &st) == 0 && (st.st_mode & (S_ISUID | S_ISGID)) != 0 && geteuid() != 0) {
        why = "it is set-uid or set-gid, and the dynamic linker preloads nothing there";
    } else if (eh.e_ident[EI_CLASS] != ELFCLASS64 || eh.e_machine != EM_X86_64) {
        why = "it is not a 64-bit x86 program";
    } else {
        why = "it is statically linked: softkvm needs a dynamically linked program";
        for (unsigned i = 0; i < eh.e_phnum && eh.e_phentsize == sizeof(Elf64_Phdr); i++) {
            Elf64_Phdr ph;
            if (pread(fd, &ph, sizeof(ph), (off_t)(eh.e_phoff + i * sizeof(ph))) ==
                    (ssize_t)sizeof(ph) &&
                ph.p_type == PT_INTERP) {
                why = NULL;
                break;
            }
        }
    }
    close(fd);
    return why;
}

/* Beside this program, or where `make install` puts it. */
static bool find_shim(char path[PATH_MAX])
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n > 0) {
        self[n] = '\0';
        *(strrchr(self, '/') + 1) = '\0';
        if (snprintf(path, PATH_MAX, "%s%s", self, SHIM) < PATH_MAX && access(path, R_OK) == 0) {
            return true;
        }
    }
    (void)snprintf(path, PATH_MAX, "%s/%s", SOFTKVM_LIBDIR, SHIM);
    return access(path, R_OK) == 0;
}

int main(int argc, char **argv)
{
    char program[PATH_MAX];
    char shim[PATH_MAX];
    char preload[2 * PATH_MAX];
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        fputs(usage, argc < 2 ? stderr : stdout);
        return argc < 2 ? EXIT_USAGE : 0;
    }
    if (strcmp(argv[1], "--virt-flag") == 0 && argc > 2) {
        if (setenv("SOFTKVM_VIRT_FLAG", "1", 1) < 0) {
            fprintf(stderr, "softkvm: %s\n", strerror(errno));
            return EXIT_REFUSED;
        }
        argv++;
    }
    if (argv[1][0] == '-') {
        fprintf(stderr, "softkvm: unknown option '%s': see 'softkvm --help'\n", argv[1]);
        return EXIT_USAGE;
    }
    if (!find_program(argv[1], program)) {
        fprintf(stderr, "softkvm: cannot run '%s': %s\n", argv[1], strerror(errno));
        return EXIT_NOT_FOUND;
    }
    const char *why = refuse(program);
    if (why != NULL) {
        fprintf(stderr, "softkvm: cannot serve '%s': %s\n", program, why);
        return EXIT_REFUSED;
    }
    if (!find_shim(shim)) {
        fprintf(stderr, "softkvm: %s is missing: it belongs beside softkvm or in %s\n", SHIM,
                SOFTKVM_LIBDIR);
        return EXIT_REFUSED;
    }
    const char *before = getenv("LD_PRELOAD");
    (void)snprintf(preload, sizeof(preload), "%s%s%s", shim, before != NULL ? ":" : "",
                   before != NULL ? before : "");
    if (setenv("LD_PRELOAD", preload, 1) < 0) {
        fprintf(stderr, "softkvm: %s\n", strerror(errno));
        return EXIT_REFUSED;
    }
    execv(program, argv + 1);
    fprintf(stderr, "softkvm: cannot run '%s': %s\n", program, strerror(errno));
    return EXIT_REFUSED;
}
