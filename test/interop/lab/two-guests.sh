# guests: 2
# Two guests, with names and addresses of their own, are logged in to one LUN at once: each reads what the other one wrote,
# and both write side by side without an error. They agree by told and await who is next.
. /share/lib.sh
attach $TARGET
# both WHAT: the guests meet; neither goes on before the other has come as far.
both() {
  told "$1-$GUEST"
  for guest in first second; do await "$1-$guest"; done
  echo "ok: both guests: $1"
}
write_at() { dd if="$1" of="$DISK" bs=1M count=8 seek="$2" oflag=direct conv=fsync; }
reads_at() { dd if="$DISK" bs=1M count=8 skip="$2" iflag=direct 2>/dev/null | cmp - "$1"; }
case $GUEST in
first) own=0 other=8 peer=second ;;
second) own=8 other=0 peer=first ;;
esac
both "logged in"
if [ "$GUEST" = first ]; then
  plexus session list >/tmp/sessions
  for name in "$LINUX_NAME" "$(sed -n 's/^SECOND_NAME=//p' /vagrant/lab.env)"; do
    equal "a session of $name" "$(grep -c "$name" /tmp/sessions)" 1
  done
fi

dd if=/dev/urandom of="/share/data-$GUEST" bs=1M count=8 2>/dev/null
check "a write" write_at "/share/data-$GUEST" $own
both "written"
check "what the other guest wrote" reads_at "/share/data-$peer" $other
both "read"
check "a write over what the other guest wrote" write_at "/share/data-$GUEST" $other
both "overwritten"
check "what the other guest wrote over mine" reads_at "/share/data-$peer" $own

check "a load side by side" fio --name="$GUEST" --filename="$DISK" --offset=$((32 + own * 8))m --size=48m --direct=1 \
  --ioengine=libaio --rw=randwrite --bsrange=4k-64k --iodepth=8 --verify=crc32c --verify_fatal=1 --do_verify=1
both "loaded"
check "logout" logout $TARGET
clean_log
