# plexusd is killed by SIGKILL under load and started again, twice: the session recovers by itself and nothing
# that was acknowledged is lost.
. /share/lib.sh
attach $TARGET
modprobe ext4 2>/dev/null
check "mkfs.ext4" mkfs.ext4 -q -F "$DISK" 128M
mkdir -p /mnt/fs
check "mount" mount "$DISK" /mnt/fs
check "a synced file" dd if=/dev/urandom of=/mnt/fs/synced bs=1M count=24 conv=fsync
sum=$(md5sum </mnt/fs/synced)
fio --name=load --filename="$DISK" --offset=160m --size=192m --direct=1 --ioengine=libaio --rw=randwrite \
  --bs=8k --iodepth=8 --fsync=32 --rate=12m --verify=crc32c --verify_fatal=1 >/tmp/fio.log 2>&1 &
load=$!
for round in 1 2; do
  sleep 4
  kill -0 $load 2>/dev/null || { tail -20 /tmp/fio.log; fail "fio ended too early"; }
  check "round $round: a synced write just before the kill" dd if=/dev/urandom of=/mnt/fs/round$round bs=1M count=4 conv=fsync
  ask kill9 >/dev/null
  echo "ok: round $round: killed and started again"
done
wait $load || { tail -20 /tmp/fio.log; fail "fio over two crashes of the target"; }
echo "ok: fio wrote and verified over two crashes"
[ "$(dmesg | grep -c 'detected conn error')" -ge 2 ] || fail "the crashes were not felt: $(dmesg | tail -5)"
check "unmount" umount /mnt/fs
echo 3 >/proc/sys/vm/drop_caches
check "e2fsck" e2fsck -fn "$DISK"
check "mount again" mount "$DISK" /mnt/fs
equal "the synced file" "$(md5sum </mnt/fs/synced)" "$sum"
check "unmount" umount /mnt/fs
check "logout" logout $TARGET
clean_log 'conn error|connection[0-9]+:0'
