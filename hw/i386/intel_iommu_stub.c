/*
 * Intel VT-d: builds without the unit
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "monitor/hmp-target.h"
#include "monitor/monitor.h"
#include "qapi/qapi-commands-misc-target.h"

VTDUnitInfoList *qmp_x_query_vtd(Error **errp)
{
    return NULL;
}

void hmp_info_iommu(Monitor *mon, const QDict *qdict)
{
    monitor_printf(mon, "VT-d is not available in this QEMU\n");
}
