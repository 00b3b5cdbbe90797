# SPDX-License-Identifier: GPL-2.0-or-later
#
# What the tests ask of the guest.  Each function prints facts, one a line as
# "key=value"; the host judges them.

# The PCI address of the first device with a driver of this name
pci_of()
{
    for link in /sys/bus/pci/devices/*/driver /sys/bus/virtio/devices/*/driver
    do
        [ -e "$link" ] || continue
        [ "$(basename "$(readlink -f "$link")")" = "$1" ] || continue
        readlink -f "$(dirname "$link")" | grep -o '0000:[^/]*' | tail -n1
        return 0
    done
    return 1
}

# The network interface of the driver
interface_of()
{
    for net in /sys/class/net/*; do
        [ -e "$net/device/driver" ] || continue
        if [ "$(basename "$(readlink -f "$net/device/driver")")" = "$1" ]; then
            basename "$net"
            return 0
        fi
    done
    return 1
}

wait_for()
{
    local limit=$1
    shift
    while [ "$limit" -gt 0 ]; do
        "$@" > /dev/null 2>&1 && return 0
        sleep 0.2
        limit=$((limit - 1))
    done
    echo "gave up waiting for: $*"
    return 1
}

has_media()
{
    [ "$(cat "/sys/block/$1/size" 2> /dev/null || echo 0)" -gt 0 ] &&
        [ -b "/dev/$1" ]
}

is_gone()
{
    [ ! -e "/sys/block/$1" ]
}

# As many disks as the host has announced with vtd.disks=a,b,c
wait_for_disks()
{
    for disk in $(sed -n 's/.*vtd.disks=\([^ ]*\).*/\1/p' /proc/cmdline |
                  tr , ' '); do
        wait_for 150 has_media "$disk"
    done
}

drop_caches()
{
    sync
    echo 3 > /proc/sys/vm/drop_caches
}

hash_of()
{
    dd if="/dev/$1" bs=64k skip="$2" count="$3" 2> /dev/null | sha256sum |
        cut -d' ' -f1
}

# disk_check DISK: hash the first MiB, which the host has written; write
# 2 MiB of random data at 4 MiB, read them back from the disk
disk_check()
{
    drop_caches
    echo "host_data=$(hash_of "$1" 0 16)"
    dd if=/dev/urandom of=/tmp/data bs=64k count=32 2> /dev/null
    echo "written=$(sha256sum < /tmp/data | cut -d' ' -f1)"
    dd if=/tmp/data of="/dev/$1" bs=64k seek=64 conv=fsync,notrunc \
        2> /dev/null || echo "write_error=1"
    drop_caches
    echo "read_back=$(hash_of "$1" 64 32)"
    rm -f /tmp/data
}

# net_check: frames in both directions between the two interfaces, which the
# host has joined; the program compares what arrives with what was sent
net_check()
{
    for driver in "$1" "$2"; do
        ip link set "$(interface_of "$driver")" up || return 1
    done
    net-loop "$(interface_of "$1")" "$(interface_of "$2")" "${3:-40}"
}

# Endless loops of checked I/O, in the background, which wait $DELAY
# milliseconds after each round; loop_status shows how far each has come
start_loops()
{
    for disk in "$@"; do
        io-loop "/dev/$disk" "/tmp/loop.$disk" "${DELAY:-0}" > \
            "/tmp/out.$disk" 2>&1 &
    done
}

start_net_loop()
{
    for driver in "$1" "$2"; do
        ip link set "$(interface_of "$driver")" up || return 1
    done
    net-loop "$(interface_of "$1")" "$(interface_of "$2")" 0 /tmp/loop.net \
        > /tmp/out.net 2>&1 &
}

loop_status()
{
    for file in /tmp/loop.*; do
        echo "${file#/tmp/loop.}=$(cat "$file")"
    done
    cat /tmp/out.* 2> /dev/null
    return 0
}

stop_loops()
{
    killall io-loop net-loop 2> /dev/null
    while pidof io-loop net-loop > /dev/null; do
        sleep 0.1
    done
    rm -f /tmp/loop.* /tmp/out.*
}

iommu_facts()
{
    for unit in /sys/class/iommu/dmar*; do
        [ -e "$unit" ] || continue
        echo "unit=$(basename "$unit")"
        echo "version=$(cat "$unit/intel-iommu/version")"
        echo "cap=$(cat "$unit/intel-iommu/cap")"
    done
    for type in /sys/kernel/iommu_groups/*/type; do
        [ -e "$type" ] || continue
        devices=$(ls "$(dirname "$type")/devices" | tr '\n' ' ')
        echo "group=$(cat "$type") $devices"
    done
}

# Interrupts of these drivers: the chip that delivers them and the count
irq_facts()
{
    awk '$1 ~ /^[0-9]+:$/ {
        sum = 0
        for (i = 2; i <= NF && $i ~ /^[0-9]+$/; i++)
            sum += $i
        chip = $i
        print "irq=" substr($1, 1, length($1) - 1) " " chip " " sum " " $NF
    }' /proc/interrupts
}

# Move every interrupt that can be moved to the processor in the mask
move_irqs()
{
    for irq in /proc/irq/[0-9]*; do
        echo "$1" > "$irq/smp_affinity" 2> /dev/null
    done
    return 0
}

# Hand a PCI device to vfio-pci
bind_vfio()
{
    local dev=/sys/bus/pci/devices/$1
    echo vfio-pci > "$dev/driver_override" || return 1
    [ -e "$dev/driver" ] && echo "$1" > "$dev/driver/unbind"
    echo "$1" > /sys/bus/pci/drivers_probe
    wait_for 25 [ -e "$dev/driver" ] || return 1
    basename "$(readlink -f "$dev/iommu_group")"
}

edu_address()
{
    for dev in /sys/bus/pci/devices/*; do
        if grep -q 0x1234 "$dev/vendor" && grep -q 0x11e8 "$dev/device"; then
            basename "$dev"
            return 0
        fi
    done
    return 1
}

vfio_check()
{
    local address group
    address=$(edu_address) || { echo "no edu device"; return 1; }
    group=$(bind_vfio "$address") || return 1
    echo "device=$address"
    vfio-edu "$address" "$group"
}

# Let the edu device read from this address, without a driver: 16 bytes to
# its buffer (docs/specs/edu.rst)
edu_reads_from()
{
    local dev bar
    dev=/sys/bus/pci/devices/$(edu_address) || return 1
    echo 1 > "$dev/enable"
    printf '\006' | dd of="$dev/config" bs=1 seek=4 conv=notrunc 2> /dev/null
    bar=$(head -n1 "$dev/resource" | cut -d' ' -f1)
    devmem $((bar + 0x80)) 64 "$1"
    devmem $((bar + 0x88)) 64 0x40000
    devmem $((bar + 0x90)) 64 16
    devmem $((bar + 0x98)) 64 1
    sleep 1
}

banner()
{
    cat << BANNER

A Linux $(uname -r) guest behind an Intel IOMMU (VT-d). Things to try:
  dmesg | grep -i dmar           what Linux found and set up
  iommu_facts; irq_facts         domains per device; interrupts and their chip
  disk_check vda                 write and read back (also: nvme0n1, sda)
  net_check e1000e virtio_net    frames both ways between the two NICs
  vfio_check; dmesg | tail       a device in user space, and its DMA stopped
(These are shell functions after ". /lib/checks.sh".) "poweroff -f" leaves.

BANNER
}
