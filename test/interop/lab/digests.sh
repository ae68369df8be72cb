# host: digests=CRC32C
# Header and data digests on, in both directions.
. /share/lib.sh
wait_host
check "discovery" discover
set_node $TARGET 'node.conn[0].iscsi.HeaderDigest' CRC32C
set_node $TARGET 'node.conn[0].iscsi.DataDigest' CRC32C
attach_with_digests() {
  check "login with digests" login $TARGET
  DISK=$(disk_of $TARGET) || fail "no disk"
}
attach_with_digests
iscsiadm -m session -P 3 >/tmp/session
equal "the header digest is in use" "$(grep -c 'HeaderDigest: CRC32C' /tmp/session)" 1
equal "the data digest is in use" "$(grep -c 'DataDigest: CRC32C' /tmp/session)" 1
check "fio with digests" fio --name=digests --filename="$DISK" --direct=1 --ioengine=libaio \
  --verify=crc32c --verify_fatal=1 --rw=randwrite --bsrange=512-128k --iodepth=16 --size=96m
check "logout" logout $TARGET
clean_log
