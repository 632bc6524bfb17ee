/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/hv_fake.h"
#include "vmm/irq.h"
#include "vmm/layout.h"
#include "vmm/vm.h"

static struct vm vm;
static struct irq *irq;

static int setup(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    int fd;
    hv_fake_reset();
    assert_int_equal(hv_fake.open(&fd, &err), 0);
    assert_int_equal(vm_init(&vm, &hv_fake, fd, &err), 0);
    assert_int_equal(irq_new(&vm, &irq, &err), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    irq_free(irq);
    vm_done(&vm);
    return 0;
}

static unsigned routes_of(uint32_t gsi, uint32_t chip, uint32_t pin)
{
    unsigned n = 0;
    for (unsigned i = 0; i < hv_fake_state.nroutes; i++) {
        const struct kvm_irq_routing_entry *e = &hv_fake_state.route[i];
        n += e->gsi == gsi && e->type == KVM_IRQ_ROUTING_IRQCHIP && e->u.irqchip.irqchip == chip &&
             e->u.irqchip.pin == pin;
    }
    return n;
}

static const struct kvm_irq_routing_entry *msi_route(uint32_t gsi)
{
    for (unsigned i = 0; i < hv_fake_state.nroutes; i++) {
        if (hv_fake_state.route[i].gsi == gsi &&
            hv_fake_state.route[i].type == KVM_IRQ_ROUTING_MSI) {
            return &hv_fake_state.route[i];
        }
    }
    return NULL;
}

static void lines_reach_both_controllers(void **state)
{
    (void)state;
    assert_int_equal(hv_fake_state.nroutes, 16 + 23);
    assert_int_equal(routes_of(0, KVM_IRQCHIP_PIC_MASTER, 0), 1);
    assert_int_equal(routes_of(0, KVM_IRQCHIP_IOAPIC, 2), 1);
    assert_int_equal(routes_of(0, KVM_IRQCHIP_IOAPIC, 0), 0);
    assert_int_equal(routes_of(2, KVM_IRQCHIP_IOAPIC, 2), 0);
    for (uint32_t gsi = 3; gsi < 24; gsi++) {
        assert_int_equal(routes_of(gsi, KVM_IRQCHIP_IOAPIC, gsi), 1);
    }
    assert_int_equal(routes_of(12, KVM_IRQCHIP_PIC_SLAVE, 4), 1);
    irq_set(irq, 9, 5);
    assert_int_equal(hv_fake_state.last_line.irq, 9);
    assert_int_equal(hv_fake_state.last_line.level, 1);
    unsigned lines = hv_fake_state.lines;
    irq_set(irq, 24, 1);
    assert_int_equal(hv_fake_state.lines, lines);
}

static void messages_get_routes_and_eventfds(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct dev_msi *a;
    struct dev_msi *b;
    assert_int_equal(irq_msi_new(irq, &a, &err), 0);
    assert_int_equal(irq_msi_new(irq, &b, &err), 0);
    assert_int_equal(irq_msi_fd(a), -1);
    irq_msi_fire(irq, a); /* before it is programmed: nothing */
    assert_int_equal(hv_fake_state.msis, 0);

    assert_int_equal(irq_msi_set(irq, a, UINT64_C(0x1fee00000), 0x31), 0);
    assert_int_equal(irq_msi_set(irq, b, 0xfee01000, 0x32), 0);
    assert_int_equal(hv_fake_state.irqfds, 2);
    const struct kvm_irq_routing_entry *e = msi_route(LAYOUT_GSI_MSI_BASE);
    assert_non_null(e);
    assert_int_equal(e->u.msi.address_lo, 0xfee00000);
    assert_int_equal(e->u.msi.address_hi, 1);
    assert_int_equal(e->u.msi.data, 0x31);

    irq_msi_fire(irq, a);
    uint64_t count = 0;
    assert_int_equal(read(irq_msi_fd(a), &count, sizeof(count)), sizeof(count));
    assert_int_equal(count, 1);
    assert_int_equal(hv_fake_state.msis, 0);

    assert_int_equal(irq_msi_set(irq, a, 0xfee02000, 0x41), 0);
    assert_int_equal(msi_route(LAYOUT_GSI_MSI_BASE)->u.msi.data, 0x41);
    assert_int_equal(hv_fake_state.irqfds, 2);

    irq_msi_free(irq, a);
    assert_null(msi_route(LAYOUT_GSI_MSI_BASE));
    assert_non_null(msi_route(LAYOUT_GSI_MSI_BASE + 1));
    assert_int_equal(hv_fake_state.irqfds, 1);
    irq_msi_free(irq, b);
    assert_int_equal(hv_fake_state.irqfds, 0);
    assert_int_equal(hv_fake_state.nroutes, 16 + 23);
}

static void without_irqfd_messages_are_signalled(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct dev_msi *a;
    hv_fake_state.irqfd_error = -EMFILE;
    assert_int_equal(irq_msi_new(irq, &a, &err), 0);
    assert_int_equal(irq_msi_set(irq, a, 0xfee00000, 0x55), 0);
    assert_int_equal(irq_msi_fd(a), -1);
    irq_msi_fire(irq, a);
    assert_int_equal(hv_fake_state.msis, 1);
    assert_int_equal(hv_fake_state.last_msi.data, 0x55);
    assert_int_equal(hv_fake_state.last_msi.address_lo, 0xfee00000);
    irq_msi_free(irq, a);
}

static void a_full_table_falls_back_to_signals(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    irq_free(irq);
    hv_fake_state.max_routes = 26; /* two messages */
    assert_int_equal(irq_new(&vm, &irq, &err), 0);
    struct dev_msi *m[3];
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(irq_msi_new(irq, &m[i], &err), 0);
        assert_int_equal(irq_msi_set(irq, m[i], 0xfee00000, i), 0);
    }
    assert_true(irq_msi_fd(m[1]) >= 0);
    assert_int_equal(irq_msi_fd(m[2]), -1);
    irq_msi_fire(irq, m[2]);
    assert_int_equal(hv_fake_state.msis, 1);
    for (unsigned i = 0; i < 3; i++) {
        irq_msi_free(irq, m[i]);
    }
}

static void doorbells_go_to_the_engine(void **state)
{
    (void)state;
    struct bus_eventfd e = { .addr = 0x1000, .size = 2, .match = true, .value = 3, .fd = 7 };
    assert_int_equal(vm_mmio_eventfd(&vm, &e, true), 0);
    assert_int_equal(hv_fake_state.last_ioeventfd.addr, 0x1000);
    assert_int_equal(hv_fake_state.last_ioeventfd.len, 2);
    assert_int_equal(hv_fake_state.last_ioeventfd.datamatch, 3);
    assert_int_equal(hv_fake_state.last_ioeventfd.flags, KVM_IOEVENTFD_FLAG_DATAMATCH);
    assert_int_equal(vm_pio_eventfd(&vm, &e, false), 0);
    assert_int_equal(hv_fake_state.last_ioeventfd.flags, KVM_IOEVENTFD_FLAG_DATAMATCH |
                                                             KVM_IOEVENTFD_FLAG_PIO |
                                                             KVM_IOEVENTFD_FLAG_DEASSIGN);
    e.size = 0; /* any length cannot match a value */
    assert_int_equal(vm_mmio_eventfd(&vm, &e, true), -EOPNOTSUPP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lines_reach_both_controllers, setup, teardown),
        cmocka_unit_test_setup_teardown(messages_get_routes_and_eventfds, setup, teardown),
        cmocka_unit_test_setup_teardown(without_irqfd_messages_are_signalled, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_table_falls_back_to_signals, setup, teardown),
        cmocka_unit_test_setup_teardown(doorbells_go_to_the_engine, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
