# host: disks=4 diskMiB=128 vagrant=yes
# The very script that makes the Linux box of vagrant/ an initiator: CHAP in both directions, two networks, multipath, a file
# system. Then one network is cut under load, and mended: programs notice nothing.
BARE=1
. /share/lib.sh
make_initiator() { sh /vagrant/provision/linux-initiator.sh; }
paths() { multipathd show paths format '%d %t %T'; }
wait_host
check "volume create" plexus volume create "$VOLUME" --raid5 d1 d2 d3 --wait

say "from nothing"
make_initiator >/tmp/made 2>&1 || fail "provisioning: $(cat /tmp/made)"
cat /tmp/made
equal "a session over each network" "$(iscsiadm -m session | grep -c "$TARGET_NAME")" 2
equal "two active paths" "$(paths | grep -c 'active *ready')" 2
iscsiadm -m session -P 2 | grep -Eq 'password_in: \*+' || fail "no mutual CHAP: $(iscsiadm -m session -P 2)"
check "it is mounted" mountpoint -q "$MOUNT"
check "a file" dd if=/dev/urandom of="$MOUNT/file" bs=1M count=16 conv=fsync
sum=$(md5sum <"$MOUNT/file")

say "again"
find /etc -type f -exec md5sum {} + | sort >/tmp/etc.before
make_initiator >/tmp/again 2>&1 || fail "provisioning again: $(cat /tmp/again)"
find /etc -type f -exec md5sum {} + | sort >/tmp/etc.after
equal "it says one thing" "$(cat /tmp/again)" "$(tail -1 /tmp/made)"
check "no file has changed" cmp /tmp/etc.before /tmp/etc.after

say "a network is cut under load"
fio --name=load --filename="$MOUNT/load" --size=32m --direct=1 --ioengine=libaio --rw=randwrite --bs=16k --iodepth=8 \
  --rate=4m --fsync=32 --time_based --runtime=45 --verify=crc32c --verify_fatal=1 >/tmp/load.log 2>&1 &
LOAD=$!
sleep 2
equal "network A is cut" "$(ask network cut A)" "done"
began=$(date +%s)
check "a synced write" timeout 40 dd if=/dev/zero of="$MOUNT/synced" bs=4k count=1 oflag=direct,sync
took=$(($(date +%s) - began))
[ $took -le 25 ] || fail "it took $took s, not 25"
echo "ok: it took $took s"
shows "multipath: a path has failed" 'failed' paths
loaded "the load goes on"
equal "network A is mended" "$(ask network mend A)" "done"
shows "multipath: both paths are back" '1' sh -c "multipathd show paths format '%t %T' | grep -c 'active *ready' | grep 2 && echo 1"
wait $LOAD || {
  tail -20 /tmp/load.log
  fail "the load failed"
}
echo "ok: the load wrote and verified without an error"
echo 3 >/proc/sys/vm/drop_caches
equal "the file of before" "$(md5sum <"$MOUNT/file")" "$sum"

say "data is not formatted"
DEVICE=$(findmnt -n -o SOURCE "$MOUNT")
check "unmount" umount "$MOUNT"
check "e2fsck" e2fsck -fn "$DEVICE"
check "the file system goes" wipefs -q -a "$DEVICE"
refused "a disk with other data on it" 1 make_initiator
grep -q 'has other data on it' /tmp/check.log || fail "it says: $(cat /tmp/check.log)"
check "logout" iscsiadm -m node -T "$TARGET_NAME" --logout
clean_log 'conn error|connection[0-9]+:0|dev sd[a-z]|ping timeout|[0-9]:0:0:0'
