# The configuration is reloaded under load: a second target comes and goes, the first one feels nothing.
. /share/lib.sh
NOT_FOUND=19 # iscsiadm's word for a login that will never succeed (status 0203h)
attach $TARGET
fio --name=load --filename="$DISK" --direct=1 --ioengine=libaio --rw=randwrite --bs=16k --iodepth=16 \
  --size=64m --verify=crc32c --verify_fatal=1 --time_based --runtime=12 >/tmp/fio.log 2>&1 &
load=$!
sleep 2
for round in 1 2; do
  ask add-target >/dev/null
  discover >/tmp/found
  equal "round $round: the second target is found" "$(grep -c "$SECOND_TARGET" /tmp/found)" 1
  check "round $round: login to it" login $SECOND_TARGET
  second=$(disk_of $SECOND_TARGET) || fail "no disk of the second target"
  check "round $round: write to it" dd if=/dev/urandom of="$second" bs=64k count=64 oflag=direct
  check "round $round: logout" logout $SECOND_TARGET
  ask remove-target >/dev/null
  discover >/tmp/found
  equal "round $round: the second target is gone" "$(grep -c "$SECOND_TARGET" /tmp/found)" 0
  equal "round $round: the first one is still there" "$(grep -c "$TARGET\$" /tmp/found)" 1
  iscsiadm -m node -T $SECOND_TARGET -p $PORTAL -o new >/dev/null 2>&1
  refused "round $round: login to what is gone" $NOT_FOUND login $SECOND_TARGET
  iscsiadm -m node -T $SECOND_TARGET -p $PORTAL -o delete >/dev/null 2>&1
done
ask broken-config >/dev/null
check "a broken configuration changes nothing: the target is still found" \
  sh -c "iscsiadm -m discovery -t sendtargets -p $PORTAL | grep -q '$TARGET\$'"
wait $load || { tail -20 /tmp/fio.log; fail "fio under reload"; }
echo "ok: fio ran through all reloads"
check "logout" logout $TARGET
clean_log "connection[2-9][0-9]*:0: detected conn error .1020." # the logins that were refused
