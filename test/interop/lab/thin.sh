# host: disks=4 diskMiB=300 volumes=thin
# A thin LUN of 2 TiB over 900 MiB: files are written and deleted, fstrim gives the space back, plexusd is killed under load,
# all space is given away, Linux is told before, writes wait, and one more disk lets them go on.
. /share/lib.sh
wait_host
check "virstor create" plexus virstor create thin d1 d2 d3 --size 2TiB --chunk 1MiB --full-wait 10s
shows "status: up" 'state: UP ' plexus status thin
used() { plexus virstor list --no-headings -p -o used; }
free() { plexus virstor list --no-headings -p -o free; }
MIB=1048576
attach $VOLUMES_TARGET
attach_lun 0
equal "its size" "$(blockdev --getsize64 "$DISK")" $((2048 * 1024 * MIB))
[ "$(cat /sys/block/"${DISK#/dev/}"/queue/discard_max_bytes)" -gt 0 ] || fail "Linux does not see that the unit unmaps"

modprobe ext4 2>/dev/null
check "mkfs.ext4" mkfs.ext4 -q -E lazy_itable_init=1,lazy_journal_init=1 -O ^has_journal -i 16777216 -G 2048 "$DISK"
empty=$(used)
echo "a file system of 2 TiB takes $((empty / MIB)) MiB"
[ "$empty" -lt $((400 * MIB)) ] || fail "$empty bytes"
mkdir -p /mnt/fs
check "mount" mount "$DISK" /mnt/fs
check "a file of 200 MiB" dd if=/dev/urandom of=/mnt/fs/large bs=1M count=200 conv=fsync
full=$(used)
[ "$full" -ge $((empty + 199 * MIB)) ] || fail "$full bytes after 200 MiB more than $empty"
rm /mnt/fs/large
sync
check "fstrim" fstrim -v /mnt/fs
# Space is free when that is durable: after five seconds at the latest.
for _ in 1 2 3 4 5 6 7 8 9 10; do
  after=$(used)
  [ "$after" -gt $((full - 190 * MIB)) ] || break
  sleep 1
done
echo "used: $((full / MIB)) MiB, then $((after / MIB)) MiB"
[ "$after" -le $((full - 190 * MIB)) ] || fail "fstrim of 200 MiB left $after of $full bytes"

say "plexusd is killed"
check "a file to keep" sh -c 'seq 1 2000000 >/mnt/fs/kept && sync && sha256sum /mnt/fs/kept >/tmp/sum'
equal "SIGKILL and restart" "$(ask kill9)" "started again"
echo 3 >/proc/sys/vm/drop_caches
check "what was synced is there" sha256sum -c /tmp/sum
shows "status: up" 'state: UP ' plexus status thin

say "all space is given away: writes wait"
check "virstor set" plexus virstor set thin --full-wait 25s
dd if=/dev/zero of=/mnt/fs/filler bs=1M count=1500 oflag=direct >/tmp/dd.log 2>&1 &
writer=$!
for _ in $(seq 300); do
  [ "$(free)" -ge $((8 * MIB)) ] || break
  sleep 1
done
[ "$(free)" -lt $((8 * MIB)) ] || fail "$(free) bytes are free: $(cat /tmp/dd.log)"
shows "status: what to do" 'action: .*virstor add thin' plexus status thin
dmesg | grep -i 'thin provisioning soft threshold' || fail "Linux was not told that space runs low"
if command -v sg_logs >/dev/null; then
  shows "log page 0Ch" 'Available LBA mapping.* resource count' sg_logs --page=0xc "$DISK"
fi
sleep 3
kill -0 $writer || fail "the writer did not wait: $(cat /tmp/dd.log)"
echo 3 >/proc/sys/vm/drop_caches
check "what is there can be read" sha256sum -c /tmp/sum
before=$(used)
check "virstor add" plexus virstor add thin d4
for _ in $(seq 60); do
  [ "$(used)" -lt $((before + 100 * MIB)) ] || break
  sleep 1
done
echo "used: $((before / MIB)) MiB, then $(($(used) / MIB)) MiB"
[ "$(used)" -ge $((before + 100 * MIB)) ] || fail "the writer did not go on: $(cat /tmp/dd.log)"
wait $writer && fail "1500 MiB were written to 1200"
rm /mnt/fs/filler
sync
check "fstrim" fstrim -v /mnt/fs
check "writes go on" dd if=/dev/urandom of=/mnt/fs/more bs=1M count=50 conv=fsync
check "unmount" umount /mnt/fs
check "e2fsck" e2fsck -fn "$DISK"
check "logout" logout $VOLUMES_TARGET
