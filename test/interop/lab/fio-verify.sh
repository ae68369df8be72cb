# host: device=loop
# fio writes and verifies: mixed sizes, several queue depths, all by direct I/O.
. /share/lib.sh
attach $TARGET
run_fio() { # NAME OPTIONS...
  name=$1
  shift
  check "fio $name" fio --name="$name" --filename="$DISK" --direct=1 --ioengine=libaio \
    --verify=crc32c --verify_fatal=1 --do_verify=1 --randrepeat=0 --group_reporting "$@"
}
run_fio random-4k --rw=randwrite --bs=4k --iodepth=32 --size=48m
run_fio random-mixed --rw=randwrite --bsrange=512-256k --iodepth=16 --size=96m
run_fio sequential-1m --rw=write --bs=1m --iodepth=4 --size=192m
run_fio four-jobs --rw=randrw --bs=16k --iodepth=8 --numjobs=4 --size=16m --offset_increment=32m
run_fio with-fua --rw=randwrite --bs=8k --iodepth=4 --size=8m --sync=1
run_fio with-flush --rw=randwrite --bs=8k --iodepth=4 --size=8m --fsync=8
check "logout" logout $TARGET
clean_log
