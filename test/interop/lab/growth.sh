# host: disks=5 diskMiB=128 volumes=data,fast
# A concat and a stripe volume are written, verified and made larger in use: the guest sees the new size, a mounted file
# system grows into it, and plexusd is killed while the stripe is laid out anew.
. /share/lib.sh
wait_host
check "a concat volume" plexus volume create data --concat d1
check "a stripe volume" plexus volume create fast --stripe d3 d4 --stripe-size 64KiB
shows "status: both are up" 'exported: .* lun 0' plexus status data
check "discovery" discover
check "login" login $VOLUMES_TARGET

say "concat: a mounted file system grows"
attach_lun 0
modprobe ext4 2>/dev/null
old=$(blockdev --getsize64 "$DISK")
check "mkfs.ext4" mkfs.ext4 -q -F "$DISK"
mkdir -p /mnt/fs
check "mount" mount "$DISK" /mnt/fs
check "a file" dd if=/dev/urandom of=/mnt/fs/before bs=1M count=48 conv=fsync
sum=$(md5sum </mnt/fs/before)
fio --name=file --filename=/mnt/fs/load --size=32m --direct=1 --ioengine=libaio --rw=randwrite --bs=16k --iodepth=4 \
  --rate=12m --verify=crc32c --verify_fatal=1 >/tmp/file.log 2>&1 &
load=$!
sleep 0.5
check "volume grow" plexus volume grow data d2
sleep 0.5
dmesg | grep -q 'Capacity data has changed' || fail "no unit attention 2A/09: $(dmesg | tail -5)"
echo "ok: unit attention: the capacity has changed"
rescan "$DISK"
new=$(blockdev --getsize64 "$DISK")
[ "$new" -gt $((old * 19 / 10)) ] || fail "the disk has $new bytes, before $old"
echo "ok: $old bytes, then $new"
check "resize2fs while mounted" resize2fs "$DISK"
wait $load || { tail -20 /tmp/file.log; fail "fio in the file system"; }
echo "ok: fio wrote and verified meanwhile"
check "a file that did not fit before" dd if=/dev/zero of=/mnt/fs/after bs=1M count=120 conv=fsync
check "unmount" umount /mnt/fs
check "e2fsck" e2fsck -fn "$DISK"
check "mount again" mount "$DISK" /mnt/fs
equal "the file of before" "$(md5sum </mnt/fs/before)" "$sum"
check "unmount" umount /mnt/fs

say "stripe: it is laid out anew, plexusd is killed"
attach_lun 1
fill "$DISK" 128m
start_load "$DISK"
old=$(blockdev --getsize64 "$DISK")
check "jobs are limited" plexus job limit all 16MiB
check "volume grow" plexus volume grow fast d5
shows "status: growing" 'state: GROWING' plexus status fast
caught grow 16MiB
crash grow
loaded "the load goes on"
check "no limit" plexus job limit "$JOB" none
check "nor for all, which outlives a restart" plexus job limit all none
check "the growth ends" plexus wait fast --timeout 30s
shows "status: up" 'state: UP ' plexus status fast
loaded "the load goes on"
rescan "$DISK"
new=$(blockdev --getsize64 "$DISK")
[ "$new" -gt $((old / 2 * 3 - 4194304)) ] || fail "the disk has $new bytes, before $old"
echo "ok: $old bytes, then $new"
stop_load
filled "what was written before all this" "$DISK" 128m
check "logout" logout $VOLUMES_TARGET
clean_log 'conn error|connection[0-9]+:0'
