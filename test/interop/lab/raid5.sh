# host: disks=6 diskMiB=96 volumes=db
# A raid5 volume loses a disk under load and gets it back, loses another one, which is replaced, and grows by one; plexusd
# is killed during the rebuild and during the growth. The initiator notices nothing but the crashes and the new size.
. /share/lib.sh
wait_host
check "volume create" plexus volume create db --raid5 d1 d2 d3 d4 --stripe-size 32KiB
check "parity is made" plexus wait db --timeout 20s
shows "status: up" 'state: UP ' plexus status db
attach $VOLUMES_TARGET
fill "$DISK" 200m
start_load "$DISK"
sleep 1

say "a disk is pulled and returns"
equal "d2 is pulled" "$(ask pull d2)" pulled
shows "status: degraded" 'state: DEGRADED' plexus status db
shows "status: since when" 'd2 +STALE .*gone since [0-9-]{10} [0-9:]{8}' plexus status db
loaded "the load goes on"
check "jobs are limited" plexus job limit all 8MiB
equal "d2 returns" "$(ask plug d2)" plugged
shows "status: d2 is being filled" 'd2 +REVIVING' plexus status db
check "no limit" plexus job limit all none
check "the rebuild ends" plexus wait db --timeout 20s
shows "status: up" 'state: UP ' plexus status db
loaded "the load goes on"

say "another disk is pulled and replaced, plexusd is killed"
equal "d3 is pulled" "$(ask pull d3)" pulled
shows "status: d3 is missing" 'action: .*volume replace db d3 ' plexus status db
check "jobs are limited" plexus job limit all 8MiB
check "volume replace" plexus volume replace db d3 d5
shows "status: d5 is being filled" 'd5 +REVIVING' plexus status db
loaded "the load goes on"
# The write hole of a degraded raid5 volume: what is under way during a crash may be lost.
stop_load
caught rebuild 8MiB
crash rebuild
start_load "$DISK"
check "no limit" plexus job limit "$JOB" none
check "nor for all, which outlives a restart" plexus job limit all none
check "the rebuild ends" plexus wait db --timeout 20s
shows "status: up" 'state: UP ' plexus status db
filled "what was written before all this" "$DISK" 200m

say "a disk is added, plexusd is killed"
old=$(blockdev --getsize64 "$DISK")
check "jobs are limited" plexus job limit all 16MiB
check "volume grow" plexus volume grow db d6
shows "status: growing" 'state: GROWING' plexus status db
caught grow 16MiB
crash grow
loaded "the load goes on"
check "no limit" plexus job limit "$JOB" none
check "nor for all, which outlives a restart" plexus job limit all none
check "the growth ends" plexus wait db --timeout 30s
shows "status: up" 'state: UP ' plexus status db
loaded "the load goes on"
rescan "$DISK"
new=$(blockdev --getsize64 "$DISK")
[ "$new" -gt $((old / 3 * 4 - 4194304)) ] || fail "the disk has $new bytes, before $old"
echo "ok: $old bytes, then $new"
stop_load
filled "what was written before all this" "$DISK" 200m
plexus status db

say "parity is right everywhere"
check "scrub" plexus volume scrub db --wait
equal "no mismatch" "$(plexus job list --no-headings -p -o kind,mismatches | grep ^check | cut -f 2)" 0
check "logout" logout $VOLUMES_TARGET
clean_log 'conn error|connection[0-9]+:0'
