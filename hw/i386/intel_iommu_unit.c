/*
 * Intel VT-d: the remapping unit as a whole
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/log.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "hw/i386/apic_internal.h"
#include "exec/address-spaces.h"
#include "system/runstate.h"
#include "intel_iommu_internal.h"
#include "trace.h"

/*
 * Tables are in memory.  A read that would reach a device instead could take
 * the big lock, for which an iothread must not wait here.
 */
static bool vtd_memory_read(void *opaque, uint64_t addr, uint64_t *words,
                            unsigned n)
{
    if (address_space_read(&address_space_memory, addr,
                           VTD_MEMORY_ONLY,
                           words, n * sizeof(*words)) != MEMTX_OK) {
        return false;
    }
    for (unsigned i = 0; i < n; i++) {
        words[i] = le64_to_cpu(words[i]);
    }
    return true;
}

/* The flags of an entry are in its low half, all that a host may have to do */
#if defined(CONFIG_ATOMIC64)
typedef uint64_t VTDAtomicWord;
#define vtd_cpu_to_le cpu_to_le64
#else
typedef uint32_t VTDAtomicWord;
#define vtd_cpu_to_le cpu_to_le32
#endif

static VTDUpdate vtd_memory_exchange(void *host, uint64_t old, uint64_t new)
{
    VTDAtomicWord expected = vtd_cpu_to_le(old);

    return qatomic_cmpxchg__nocheck((VTDAtomicWord *)host, expected,
                                    vtd_cpu_to_le(new)) == expected ?
           VTD_UPDATE_DONE : VTD_UPDATE_CHANGED;
}

/*
 * The words of @host are shared with vCPUs; address_space_unmap() tells
 * migration and translated code that one was written.
 */
static VTDUpdate vtd_memory_update(void *opaque, uint64_t addr, uint64_t old,
                                   uint64_t new)
{
    AddressSpace *as = &address_space_memory;
    hwaddr offset, len = sizeof(new);
    VTDUpdate update;
    MemoryRegion *mr;
    void *host;

    RCU_READ_LOCK_GUARD();
    mr = address_space_translate(as, addr, &offset, &len, true,
                                 VTD_MEMORY_ONLY);
    if (len < sizeof(new) ||
        !memory_access_is_direct(mr, true, VTD_MEMORY_ONLY)) {
        return VTD_UPDATE_FAILED;
    }
    memory_region_ref(mr);
    host = qemu_map_ram_ptr(mr->ram_block, offset);
    update = vtd_memory_exchange(host, old, new);
    address_space_unmap(as, host, sizeof(new), true,
                        update == VTD_UPDATE_DONE ? sizeof(new) : 0);
    return update;
}

/*
 * Section 5.1.1: the unit's own interrupts are not remapped.  Messages for
 * the local APICs do not go through memory, which has no room for 32-bit
 * APIC IDs; any other address is written to, as hardware would.
 */
void vtd_send_interrupt(VTDUnit *unit, uint64_t address, uint32_t data)
{
    MSIMessage msg = { .address = address, .data = data };
    uint32_t le = cpu_to_le32(data);

    trace_vtd_irq_generate(address, data);
    if ((uint32_t)address - VTD_IR_ADDR_BASE < VTD_IR_RANGE_SIZE) {
        apic_get_class(NULL)->send_msi(&msg);
    } else if (address_space_write(&address_space_memory, address,
                                   VTD_MEMORY_ONLY,
                                   &le, sizeof(le)) != MEMTX_OK) {
        qemu_log_mask(LOG_GUEST_ERROR, "intel-iommu: event message to 0x%"
                      PRIx64 ", which is neither an APIC nor memory\n",
                      address);
    }
}

void vtd_unit_settle(VTDUnit *unit)
{
    vtd_spaces_update_wanted(unit);
    vtd_fault_deliver(unit);
}

/*
 * While the machine is stopped its memory and its interrupts stay as they
 * are: they may have been migrated already.
 */
static void vtd_unit_bh(void *opaque)
{
    VTDUnit *unit = opaque;

    unit->left = unit->limits.go;
    if (runstate_is_running()) {
        vtd_unit_settle(unit);
        vtd_commands_resume(unit);
    } else {
        vtd_spaces_update_wanted(unit);
        vtd_shadows_run(unit);
    }
}

/*
 * When the machine stops the last of its memory has not been migrated yet:
 * what software asked for can still be finished, if it does not take long.
 */
static void vtd_unit_stop(VTDUnit *unit)
{
    unsigned goes = VTD_SHADOW_GOES_AT_STOP;

    vtd_unit_settle(unit);
    do {
        unit->left = unit->limits.go;
    } while (!vtd_commands_resume(unit) && --goes);
}

static void vtd_unit_state(void *opaque, bool running, RunState state)
{
    VTDUnit *unit = opaque;

    if (running) {
        qemu_bh_schedule(unit->bh);
    } else {
        vtd_unit_stop(unit);
    }
}

void vtd_unit_reset(VTDUnit *unit)
{
    qemu_bh_cancel(unit->bh);
    qatomic_set_u64(&unit->dmar, 0);
    qatomic_set_u64(&unit->ir, 0);
    unit->queue = (VTDQueue) { .width = 16 };
    unit->late_status = 0;
    vtd_regs_reset(unit);
    vtd_fault_reset(&unit->fault);
    vtd_flush_everything(unit);
    vtd_iec_flush_global(unit);
    vtd_spaces_update(unit);
    if (unit->behind) {
        qemu_bh_schedule(unit->bh);
    }
}

VTDUnit *vtd_unit_new(DeviceState *owner, const VTDCapDesc *cap)
{
    VTDUnit *unit = g_new0(VTDUnit, 1);

    unit->owner = owner;
    unit->cap = *cap;
    unit->memory = (VTDMemory) {
        .read = vtd_memory_read, .update = vtd_memory_update,
    };
    unit->queue.width = 16;
    unit->limits = VTD_SHADOW_LIMITS;
    unit->left = unit->limits.go;
    unit->bh = qemu_bh_new_guarded(vtd_unit_bh, unit,
                                   &owner->mem_reentrancy_guard);
    vtd_epochs_init(&unit->epochs);
    vtd_fault_init(&unit->fault, cap->fault_records);
    vtd_interrupts_init(unit);
    vtd_regs_init(unit);
    vtd_regs_reset(unit);
    vtd_spaces_init(unit);
    qemu_add_vm_change_state_handler(vtd_unit_state, unit);
    return unit;
}
