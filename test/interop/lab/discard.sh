# Discard reaches the backing store: blkdiscard and fstrim free space on the host, and read as zeroes.
. /share/lib.sh
attach $TARGET
queue=/sys/block/${DISK#/dev/}/queue
[ "$(cat "$queue/discard_max_bytes")" -gt 0 ] || fail "Linux does not see that the unit unmaps"
used() { ask allocated; } # KiB on the host
MIB=64
check "fill" dd if=/dev/urandom of="$DISK" bs=1M count=$MIB oflag=direct
full=$(used)
[ "$full" -ge $((MIB * 1024)) ] || fail "$full KiB are allocated after writing $MIB MiB"
check "blkdiscard" blkdiscard -o $((8 * 1048576)) -l $((48 * 1048576)) "$DISK"
after=$(used)
echo "allocated: $full KiB, then $after KiB"
[ "$after" -le $((full - 47 * 1024)) ] || fail "blkdiscard of 48 MiB left $after of $full KiB"
equal "discarded blocks read as zeroes" \
  "$(dd if="$DISK" bs=1M skip=8 count=48 iflag=direct 2>/dev/null | tr -d '\0' | wc -c)" 0
check "zeroing by WRITE SAME" blkdiscard -z -o 0 -l $((4 * 1048576)) "$DISK"
equal "zeroed blocks read as zeroes" \
  "$(dd if="$DISK" bs=1M count=4 iflag=direct 2>/dev/null | tr -d '\0' | wc -c)" 0
check "the rest is left alone" sh -c "[ \$(dd if=$DISK bs=1M skip=4 count=4 iflag=direct 2>/dev/null | tr -d '\\0' | wc -c) -gt 4000000 ]"

modprobe ext4 2>/dev/null
check "mkfs.ext4" mkfs.ext4 -q -F "$DISK"
mkdir -p /mnt/fs
check "mount" mount "$DISK" /mnt/fs
check "a large file" dd if=/dev/urandom of=/mnt/fs/large bs=1M count=100
sync
before=$(used)
rm /mnt/fs/large
sync
check "fstrim" fstrim -v /mnt/fs
after=$(used)
echo "allocated: $before KiB, then $after KiB"
[ "$after" -le $((before - 90 * 1024)) ] || fail "fstrim of 100 MiB left $after of $before KiB"
check "unmount" umount /mnt/fs
check "e2fsck" e2fsck -fn "$DISK"
check "logout" logout $TARGET
clean_log
