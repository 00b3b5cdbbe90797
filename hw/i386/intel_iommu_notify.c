/*
 * Intel VT-d: those who have to be told of mappings
 *
 * vfio keeps a copy of the guest's tables in the host's IOMMU and wants to
 * know what was mapped and unmapped (IOMMU_NOTIFIER_MAP).  The guest only
 * says which range it changed.  So for each such requester there is a shadow:
 * a tree of the mappings that were announced.  After a flush the tables are
 * walked over the range and compared with the shadow; the differences are
 * announced.  With caching mode the guest flushes whenever it maps, too.
 *
 * That can be much.  A shadow knows in which range it is behind the tables;
 * vtd_shadows_run() does so much at a time, the unit's bottom half goes on,
 * and until it has finished no command is answered as done.
 *
 * Others (vhost) cache translations that they asked for, and only want to
 * know what to drop.
 *
 * Everything here runs under the big lock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/log.h"
#include "qapi/error.h"
#include "exec/address-spaces.h"
#include "system/dma.h"
#include "intel_iommu_internal.h"
#include "trace.h"

/* One announced mapping: input addresses @first to @last, inclusive */
typedef struct VTDMapping {
    uint64_t first;
    uint64_t last;
    uint64_t addr;
    VTDPerm perm;
} VTDMapping;

/* Mappings do not overlap; any that overlaps the one looked for is equal */
static int vtd_mapping_compare(gconstpointer p, gconstpointer q, gpointer data)
{
    const VTDMapping *a = p, *b = q;

    return a->last < b->first ? -1 : a->first > b->last;
}

/*
 * Tell one notifier, of what lies in its range, in pieces that are powers of
 * two in size and alignment: more is not promised to it by the memory API.
 */
static void vtd_tell_one(IOMMUNotifier *n, IOMMUNotifierFlag type,
                         const VTDMapping *m)
{
    uint64_t first = MAX(m->first, n->start);
    uint64_t last = MIN(m->last, n->end);

    while (first <= last) {
        uint64_t mask = dma_aligned_pow2_mask(first, last, 64);
        IOMMUTLBEvent event = {
            .type = type,
            .entry = {
                .target_as = &address_space_memory,
                .iova = first,
                .translated_addr = m->addr + (first - m->first),
                .addr_mask = mask,
                .perm = type == IOMMU_NOTIFIER_MAP ?
                        IOMMU_ACCESS_FLAG(m->perm & VTD_PERM_R,
                                          m->perm & VTD_PERM_W) : IOMMU_NONE,
            },
        };

        memory_region_notify_iommu_one(n, &event);
        if (mask >= last - first) {
            return;
        }
        first += mask + 1;
    }
}

static void vtd_tell_all(VTDAddressSpace *as, IOMMUNotifierFlag type,
                         const VTDMapping *m)
{
    IOMMUNotifier *n;

    IOMMU_NOTIFIER_FOREACH(n, &as->iommu) {
        if (n->notifier_flags & type) {
            vtd_tell_one(n, type, m);
        }
    }
}

bool vtd_notify_wanted(VTDAddressSpace *as)
{
    return as->iommu.iommu_notify_flags & IOMMU_NOTIFIER_IOTLB_EVENTS;
}

/* May one more mapping be announced or withdrawn in this go? */
static bool vtd_shadow_may_tell(VTDAddressSpace *as)
{
    VTDShadowWork *left = &as->unit->left;

    if (left->events == 0) {
        return false;
    }
    left->events--;
    return true;
}

/*
 * Withdraw every announced mapping that overlaps [@first, @last].  Returns
 * false if those were too many.
 */
static bool vtd_shadow_withdraw(VTDAddressSpace *as, uint64_t first,
                                uint64_t last)
{
    GTree *shadow = as->shadow.mappings;
    VTDMapping range = { .first = first, .last = last };
    VTDMapping *m;

    while ((m = g_tree_lookup(shadow, &range))) {
        if (!vtd_shadow_may_tell(as)) {
            return false;
        }
        trace_vtd_page_walk_one(0, m->first, 0, m->last - m->first, 0);
        vtd_tell_all(as, IOMMU_NOTIFIER_UNMAP, m);
        g_tree_remove(shadow, m);
    }
    return true;
}

/*
 * What does not fit into the shadow is not mapped for the device, until a
 * flush finds it again and there is room.
 */
static bool vtd_shadow_announce(VTDAddressSpace *as, const VTDMapping *m)
{
    GTree *shadow = as->shadow.mappings;
    const VTDMapping *old = g_tree_lookup(shadow, m);
    VTDMapping *new;

    if (old && old->first == m->first && old->last == m->last &&
        old->addr == m->addr && old->perm == m->perm) {
        trace_vtd_page_walk_one_skip_map(m->first, m->last - m->first,
                                         m->addr);
        return true;
    }
    if (!vtd_shadow_withdraw(as, m->first, m->last)) {
        return false;
    }
    if (g_tree_nnodes(shadow) >= as->unit->limits.mappings) {
        return true;
    }
    if (!vtd_shadow_may_tell(as)) {
        return false;
    }
    /* It is its own value, for g_tree_lookup() to return it */
    new = g_memdup2(m, sizeof(*m));
    g_tree_insert(shadow, new, new);
    vtd_tell_all(as, IOMMU_NOTIFIER_MAP, m);
    return true;
}

static bool vtd_shadow_visit(void *opaque, const VTDTranslation *t)
{
    VTDAddressSpace *as = opaque;
    VTDMapping m = {
        .first = t->iova, .last = t->iova + t->mask,
        .addr = t->addr, .perm = t->perm,
    };

    if (t->perm == VTD_PERM_NONE) {
        return vtd_shadow_withdraw(as, m.first, m.last);
    }
    trace_vtd_page_walk_one(t->domain, t->iova, t->addr, t->mask, t->perm);
    return vtd_shadow_announce(as, &m);
}

/*
 * An announced mapping that only partly lies in the range may have been
 * split by the guest: compare all of it, lest its other part get lost.
 */
static void vtd_shadow_widen(VTDShadow *shadow, uint64_t *first,
                             uint64_t *last)
{
    VTDMapping low = { .first = *first, .last = *first };
    VTDMapping high = { .first = *last, .last = *last };
    const VTDMapping *m;

    m = g_tree_lookup(shadow->mappings, &low);
    if (m) {
        *first = m->first;
    }
    m = g_tree_lookup(shadow->mappings, &high);
    if (m) {
        *last = m->last;
    }
}

/* The tables of [@first, @last] have changed, as far as anyone knows */
static void vtd_shadow_behind(VTDAddressSpace *as, uint64_t first,
                              uint64_t last)
{
    VTDShadow *shadow = &as->shadow;

    vtd_shadow_widen(shadow, &first, &last);
    if (shadow->behind) {
        first = MIN(first, shadow->range.first);
        last = MAX(last, shadow->range.last);
    }
    as->unit->behind = shadow->behind = true;
    shadow->range = (VTDRange) {
        .first = first, .last = last, .budget = as->unit->limits.budget,
    };
}

/* Are there tables that say what is mapped? */
static bool vtd_shadow_config(VTDAddressSpace *as, VTDConfig *cfg)
{
    return (qatomic_read_u64(&as->unit->dmar) & VTD_DMAR_ENABLED) &&
           vtd_requester_config(as, cfg) == VTD_FR_NONE &&
           cfg->stage == VTD_STAGE_SECOND;
}

/* The tables, as far as the budgets of this go and of the range allow */
static bool vtd_shadow_walk(VTDAddressSpace *as, const VTDConfig *cfg)
{
    VTDShadowWork *left = &as->unit->left;
    VTDRange *range = &as->shadow.range;
    unsigned total = range->budget, may = MIN(total, left->entries);
    bool done;

    range->budget = may;
    done = vtd_walk_range(&as->unit->memory, cfg, range, vtd_shadow_visit, as);
    left->entries -= may - range->budget;
    range->budget = total - (may - range->budget);
    if (!done && range->budget == 0) {
        qemu_log_mask(LOG_GUEST_ERROR, "intel-iommu: the tables of requester "
                      "0x%04x have more than %u entries: from 0x%" PRIx64
                      " on nothing is mapped for the devices of the host\n",
                      vtd_sid(as), as->unit->limits.budget, range->first);
    }
    return done;
}

/* Bring the shadow in line with the guest's tables; returns whether it is */
static bool vtd_shadow_run(VTDAddressSpace *as)
{
    VTDShadow *shadow = &as->shadow;
    VTDConfig cfg;

    if (shadow->range.budget > 0 && vtd_shadow_config(as, &cfg)) {
        shadow->behind = !vtd_shadow_walk(as, &cfg);
    } else {
        shadow->behind = !vtd_shadow_withdraw(as, shadow->range.first,
                                              shadow->range.last);
    }
    return !shadow->behind;
}

bool vtd_shadows_run(VTDUnit *unit)
{
    VTDAddressSpace *as;

    if (!unit->behind) {
        return true;
    }
    QLIST_FOREACH(as, &unit->space_list, next) {
        if (as->shadow.behind && !vtd_shadow_run(as)) {
            qemu_bh_schedule(unit->bh);
            return false;
        }
    }
    unit->behind = false;
    return true;
}

/* Section 3.6: the first stage has addresses at the top, too */
static uint64_t vtd_last_address(VTDAddressSpace *as)
{
    return as->unit->cap.first_stage ? UINT64_MAX :
           MAKE_64BIT_MASK(0, as->unit->cap.aw_bits);
}

void vtd_notify_range(VTDAddressSpace *as, uint64_t first, uint64_t last)
{
    VTDMapping m = {
        .first = first, .last = MIN(last, vtd_last_address(as)),
    };

    if (m.first > m.last) {
        return;
    }
    if (as->shadow.mappings) {
        vtd_shadow_behind(as, m.first, m.last);
    } else {
        vtd_tell_all(as, IOMMU_NOTIFIER_UNMAP, &m);
    }
}

void vtd_notify_device_tlb(VTDAddressSpace *as, uint64_t first, uint64_t last)
{
    VTDMapping m = { .first = first, .last = last };

    vtd_tell_all(as, IOMMU_NOTIFIER_DEVIOTLB_UNMAP, &m);
}

static gboolean vtd_replay_mapping(gpointer key, gpointer value, gpointer data)
{
    vtd_tell_one(data, IOMMU_NOTIFIER_MAP, key);
    return false;
}

/*
 * The first one to come hears everything from the comparison with an empty
 * shadow; later ones are told what the shadow holds.
 */
void vtd_notify_replay(VTDAddressSpace *as, IOMMUNotifier *n)
{
    VTDShadow *shadow = &as->shadow;

    if (!shadow->mappings) {
        return;
    }
    if (!shadow->replayed) {
        shadow->replayed = true;
        vtd_shadow_behind(as, 0, vtd_last_address(as));
        vtd_shadows_run(as->unit);
    } else {
        g_tree_foreach(shadow->mappings, vtd_replay_mapping, n);
    }
}

void vtd_notify_destroy(VTDAddressSpace *as)
{
    if (as->shadow.mappings) {
        g_tree_destroy(as->shadow.mappings);
        as->shadow = (VTDShadow) {};
    }
}

static int vtd_notify_refuse(VTDAddressSpace *as, const char *what,
                             Error **errp)
{
    error_setg_errno(errp, ENOTSUP, "device %02x.%02x.%x requires %s",
                     PCI_BUS_NUM(vtd_sid(as)), PCI_SLOT(as->devfn),
                     PCI_FUNC(as->devfn), what);
    return -ENOTSUP;
}

int vtd_notify_flags(VTDAddressSpace *as, IOMMUNotifierFlag old,
                     IOMMUNotifierFlag new, Error **errp)
{
    const VTDCapDesc *cap = &as->unit->cap;

    if (cap->snoop_control && new != IOMMU_NOTIFIER_NONE) {
        error_setg_errno(errp, ENOTSUP,
                         "Snoop Control with vhost or VFIO is not supported");
        return -ENOTSUP;
    }
    if (!cap->caching_mode && (new & IOMMU_NOTIFIER_MAP)) {
        return vtd_notify_refuse(as, "caching mode", errp);
    }
    if (!cap->device_iotlb && (new & IOMMU_NOTIFIER_DEVIOTLB_UNMAP)) {
        return vtd_notify_refuse(as, "device IOTLB mode", errp);
    }
    if (!(new & IOMMU_NOTIFIER_MAP)) {
        vtd_notify_destroy(as);
    } else if (!as->shadow.mappings) {
        as->shadow.mappings = g_tree_new_full(vtd_mapping_compare, NULL,
                                              g_free, NULL);
    }
    return 0;
}
