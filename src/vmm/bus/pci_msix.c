/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MSI-X (PCI Local Bus 3.0 §6.8.2, §6.8.3).
 *
 * The table is plain memory to the guest. The engine's message slot of a vector follows it only
 * while the vector can fire (enabled, not masked), so that a guest which masks and unmasks per
 * interrupt costs no reprogramming; slots are made when first needed.
 *
 * Invariant, under msix.lock: a vector that can fire has no pending bit and its slot is programmed
 * as the table says.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "spec/pci_regs.h"
#include "vmm/bus/pci_int.h"
#include "vmm/dev/dev.h"

/* Table and PBA share no 2 KiB block; the BAR has at least a page. */
#define PCI_MSIX_PBA_ALIGN 0x800
#define PCI_MSIX_BAR_MIN   0x1000

static uint8_t *pci_msix_entry(const struct pci_msix *m, unsigned v)
{
    return m->table + (size_t)v * PCI_MSIX_ENTRY_SIZE;
}

static bool pci_msix_can_fire(const struct pci_msix *m, unsigned v)
{
    uint32_t ctrl = le32_get(pci_msix_entry(m, v) + PCI_MSIX_ENTRY_VCTRL);
    return m->enabled && !m->mask_all && (ctrl & PCI_MSIX_VCTRL_MASK) == 0;
}

/* Makes and programs the vector's slot. false: the engine refused the message. */
static bool pci_msix_program(struct pci_dev *pci, unsigned v)
{
    struct pci_msix_vector *vec = &pci->msix.vector[v];
    struct dev_env *env = pci->dev->env;
    const uint8_t *entry = pci_msix_entry(&pci->msix, v);
    uint64_t addr = le64_get(entry + PCI_MSIX_ENTRY_ADDR);
    uint32_t data = le32_get(entry + PCI_MSIX_ENTRY_DATA);
    bool fresh = vec->msi == NULL;
    if (fresh) {
        struct err err = ERR_INIT;
        if (env->ops->msi_new(env, &vec->msi, &err) < 0) {
            vec->msi = NULL;
            log_limited(&pci->dev->bug_limit, LOG_ERROR, pci->dev->id, "no interrupt message slot",
                        "vector='%u' error='%s'", v, err.msg);
            return false;
        }
    }
    if (fresh || vec->addr != addr || vec->data != data) {
        if (env->ops->msi_set(env, vec->msi, addr, data) < 0) {
            env->ops->msi_free(env, vec->msi);
            vec->msi = NULL;
            dev_guest_bug(pci->dev, "MSI-X vector %u has a message the engine refuses", v);
            return false;
        }
        vec->addr = addr;
        vec->data = data;
    }
    return true;
}

/* Restores the invariant for one vector after its entry or the control word changed. */
static void pci_msix_update(struct pci_dev *pci, unsigned v)
{
    struct pci_msix *m = &pci->msix;
    if (!pci_msix_can_fire(m, v) || !pci_msix_program(pci, v)) {
        return;
    }
    uint64_t bit = BIT64(v % 64);
    if ((m->pba[v / 64] & bit) != 0) {
        m->pba[v / 64] &= ~bit;
        pci->dev->env->ops->msi_fire(pci->dev->env, m->vector[v].msi);
    }
}

/* Table and PBA are read in dwords and qwords (§6.8.2); the bus splits and widens the rest. */
static uint64_t pci_msix_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pci_dev *pci = opaque;
    struct pci_msix *m = &pci->msix;
    uint64_t table_size = (uint64_t)m->count * PCI_MSIX_ENTRY_SIZE;
    uint64_t pba_size = (m->count + 63) / 64 * 8;
    uint64_t value = 0;
    (void)size; /* always 4 */
    pthread_mutex_lock(&m->lock);
    if ((offset & 3) != 0) {
        value = 0;
    } else if (offset < table_size) {
        value = le32_get(m->table + offset);
    } else if (offset >= m->pba_offset && offset - m->pba_offset < pba_size) {
        uint64_t at = offset - m->pba_offset;
        value = (uint32_t)(m->pba[at / 8] >> (8 * (at & 4)));
    }
    pthread_mutex_unlock(&m->lock);
    return value;
}

static void pci_msix_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_dev *pci = opaque;
    struct pci_msix *m = &pci->msix;
    (void)size; /* always 4 */
    if ((offset & 3) != 0 || offset >= (uint64_t)m->count * PCI_MSIX_ENTRY_SIZE) {
        return;
    }
    if (offset % PCI_MSIX_ENTRY_SIZE == PCI_MSIX_ENTRY_VCTRL) {
        value &= PCI_MSIX_VCTRL_MASK; /* the rest is reserved */
    }
    pthread_mutex_lock(&m->lock);
    le32_put(m->table + offset, (uint32_t)value);
    pci_msix_update(pci, (unsigned)(offset / PCI_MSIX_ENTRY_SIZE));
    pthread_mutex_unlock(&m->lock);
}

static const struct bus_ops pci_msix_ops = {
    .read = pci_msix_read,
    .write = pci_msix_write,
    .min_size = 4,
    .max_size = 4,
};

static void pci_msix_free(struct pci_msix *m)
{
    free(m->table);
    free(m->pba);
    free(m->vector);
    m->table = NULL;
    m->pba = NULL;
    m->vector = NULL;
}

/* Table entries come up masked, all else zero. */
static void pci_msix_clear(struct pci_msix *m)
{
    memset(m->table, 0, (size_t)m->count * PCI_MSIX_ENTRY_SIZE);
    for (unsigned v = 0; v < m->count; v++) {
        le32_put(pci_msix_entry(m, v) + PCI_MSIX_ENTRY_VCTRL, PCI_MSIX_VCTRL_MASK);
    }
    memset(m->pba, 0, (m->count + 63) / 64 * sizeof(m->pba[0]));
    m->enabled = false;
    m->mask_all = false;
}

int pci_msix_add(struct pci_dev *pci, unsigned bar, unsigned count, struct err *err)
{
    struct pci_msix *m = &pci->msix;
    assert(count >= 1 && count <= PCI_MSIX_MAX_VECTORS && m->count == 0);
    m->table = calloc(count, PCI_MSIX_ENTRY_SIZE);
    m->pba = calloc((count + 63) / 64, sizeof(m->pba[0]));
    m->vector = calloc(count, sizeof(m->vector[0]));
    if (m->table == NULL || m->pba == NULL || m->vector == NULL) {
        pci_msix_free(m);
        return err_set(err, -ENOMEM, "%s: out of memory", pci->dev->id);
    }
    m->pba_offset =
        (uint32_t)bits_align_up((uint64_t)count * PCI_MSIX_ENTRY_SIZE, PCI_MSIX_PBA_ALIGN);
    uint64_t size = PCI_MSIX_BAR_MIN;
    while (size < m->pba_offset + PCI_MSIX_MAX_VECTORS / 8) {
        size *= 2;
    }
    uint8_t body[PCI_MSIX_CAP_SIZE - 2] = { 0 };
    uint8_t wmask[PCI_MSIX_CAP_SIZE - 2] = { 0 };
    le16_put(body + PCI_MSIX_CONTROL - 2, (uint16_t)(count - 1));
    le16_put(wmask + PCI_MSIX_CONTROL - 2, PCI_MSIX_CTRL_ENABLE | PCI_MSIX_CTRL_MASK_ALL);
    le32_put(body + PCI_MSIX_TABLE - 2, bar);
    le32_put(body + PCI_MSIX_PBA - 2, m->pba_offset | bar);
    int rc = pci_bar_add(pci, bar, PCI_BAR_MEM32, size, &pci_msix_ops, pci, err);
    if (rc == 0) {
        rc = pci_cap_add(pci, PCI_CAP_ID_MSIX, body, wmask, PCI_MSIX_CAP_SIZE, err);
    }
    if (rc < 0) {
        pci_msix_free(m);
        return rc;
    }
    pthread_mutex_init(&m->lock, NULL);
    m->count = count;
    m->cap = (uint16_t)rc;
    m->bar = (uint8_t)bar;
    pci_msix_clear(m);
    return 0;
}

void pci_msix_done(struct pci_dev *pci)
{
    struct pci_msix *m = &pci->msix;
    if (m->count == 0) {
        return;
    }
    for (unsigned v = 0; v < m->count; v++) {
        if (m->vector[v].msi != NULL) {
            pci->dev->env->ops->msi_free(pci->dev->env, m->vector[v].msi);
        }
    }
    pci_msix_free(m);
    pthread_mutex_destroy(&m->lock);
    m->count = 0;
}

void pci_msix_reset(struct pci_dev *pci)
{
    struct pci_msix *m = &pci->msix;
    if (m->count == 0) {
        return;
    }
    pthread_mutex_lock(&m->lock);
    pci_msix_clear(m);
    pthread_mutex_unlock(&m->lock);
    uint8_t *ctrl = pci->config + m->cap + PCI_MSIX_CONTROL;
    le16_put(ctrl, le16_get(ctrl) & (uint16_t) ~(PCI_MSIX_CTRL_ENABLE | PCI_MSIX_CTRL_MASK_ALL));
}

void pci_msix_config_written(struct pci_dev *pci, unsigned offset, unsigned size)
{
    struct pci_msix *m = &pci->msix;
    unsigned ctrl_at = m->cap + PCI_MSIX_CONTROL;
    if (offset >= ctrl_at + 2 || offset + size <= ctrl_at) {
        return;
    }
    uint16_t ctrl = le16_get(pci->config + ctrl_at);
    pthread_mutex_lock(&m->lock);
    m->enabled = (ctrl & PCI_MSIX_CTRL_ENABLE) != 0;
    m->mask_all = (ctrl & PCI_MSIX_CTRL_MASK_ALL) != 0;
    for (unsigned v = 0; v < m->count; v++) {
        pci_msix_update(pci, v);
    }
    pthread_mutex_unlock(&m->lock);
}

bool pci_msix_enabled(const struct pci_dev *pci)
{
    return pci->msix.enabled;
}

void pci_msix_notify(struct pci_dev *pci, unsigned v)
{
    struct pci_msix *m = &pci->msix;
    if (v >= m->count) {
        return;
    }
    pthread_mutex_lock(&m->lock);
    if (pci_msix_can_fire(m, v)) {
        if (m->vector[v].msi != NULL) {
            pci->dev->env->ops->msi_fire(pci->dev->env, m->vector[v].msi);
        }
    } else if (m->enabled) {
        m->pba[v / 64] |= BIT64(v % 64);
    }
    pthread_mutex_unlock(&m->lock);
}
