# host: disks=3 diskMiB=96 volumes=db,more
# All disks of a raid5 volume are made larger while the machine is off: its data is there, and the new room is used.
. /share/lib.sh
wait_host
check "volume create" plexus volume create db --raid5 d1 d2 d3 --stripe-size 32KiB
check "parity is made" plexus wait db --timeout 20s
attach $VOLUMES_TARGET
fill "$DISK" 120m
equal "reboot" "$(ask reboot-larger 160)" "started with larger disks"
check "a read is served" timeout 20 dd if="$DISK" of=/dev/null bs=1M count=1 iflag=direct
shows "status: up" 'state: UP ' plexus status db
shows "events: the disks are larger" 'drive d1 has grown by 63' plexus events
filled "what was written before" "$DISK" 120m
check "scrub" plexus volume scrub db --wait
equal "no mismatch" "$(plexus job list --no-headings -p -o kind,mismatches | grep ^check | cut -f 2)" 0
check "a volume in the new room" plexus volume create more --raid5 d1 d2 d3 --stripe-size 32KiB
check "parity is made" plexus wait more --timeout 20s
check "the host looks for it" iscsiadm -m session --rescan
attach_lun 1
bytes=$(blockdev --getsize64 "$DISK")
[ "$bytes" -gt $((90 * 1048576)) ] || fail "the new room has $bytes bytes"
echo "ok: the new room has $bytes bytes"
fill "$DISK" 40m
filled "what is in the new room" "$DISK" 40m
attach_lun 0
filled "what was written before" "$DISK" 120m
check "logout" logout $VOLUMES_TARGET
clean_log 'conn error|connection[0-9]+:0|Sense Key : 0x2'
