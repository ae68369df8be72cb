# Discovery, login, what Linux reads of the unit, logout.
. /share/lib.sh
wait_host
discover >/tmp/found || fail "discovery: $(cat /tmp/found)"
cat /tmp/found
equal "the open target is shown at the portal that was asked" \
  "$(grep -c "^$PORTAL,[0-9]* $TARGET\$" /tmp/found)" 1
equal "no address that cannot be reached is shown" \
  "$(grep -cE '127\.0\.0\.1|0\.0\.0\.0|\[::|fe80' /tmp/found)" 0
attach $TARGET
bytes=$(ask size)
equal "capacity" "$(blockdev --getsize64 "$DISK")" "$bytes"
equal "logical block" "$(blockdev --getss "$DISK")" 512
check "INQUIRY" sg_inq "$DISK"
equal "vendor" "$(cat "/sys/block/${DISK#/dev/}/device/vendor" | tr -d ' ')" PLEXUS
for page in sv sn di bl bdc lbpv ei; do
  check "VPD page $page" sg_vpd -p $page "$DISK"
done
sg_vpd -p di "$DISK" | grep -q '0x602504c' || fail "no NAA designator: $(sg_vpd -p di "$DISK")"
check "READ CAPACITY(16)" sg_readcap -l "$DISK"
check "REPORT LUNS" sg_luns "$DISK"
check "MODE SENSE, all pages" sg_modes -a "$DISK"
check "REPORT SUPPORTED OPERATION CODES" sg_opcodes "$DISK"
check "TEST UNIT READY" sg_turs -n 20 "$DISK"
check "SYNCHRONIZE CACHE" sg_sync "$DISK"
equal "the write cache is seen as the device has it" \
  "$(cat "/sys/block/${DISK#/dev/}/queue/write_cache")" "write back"
check "logout" logout $TARGET
equal "no session stays" "$(iscsiadm -m session 2>&1 | grep -c "$TARGET")" 0
check "login again" login $TARGET
check "the disk comes back" disk_of $TARGET
check "logout again" logout $TARGET
clean_log
