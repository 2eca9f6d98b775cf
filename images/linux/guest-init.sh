#!/bin/sh
# /init of the Linux guest that Fineline's tests boot. The contract with the
# tests is in doc.go of package linux.
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
hostname fineline
export PATH=/bin HOME=/root TERM=dumb PS1='fineline# '
cd /root

mode=interactive mib=8 rest=0s job= keys=10000 windows=3 window=1s
for word in $(cat /proc/cmdline); do
	case $word in
	fineline.test=*) mode=${word#*=} ;;
	fineline.mib=*) mib=${word#*=} ;;
	fineline.rest=*) rest=${word#*=} ;;
	fineline.job=compress) job='head -c 262144 /bin/busybox | gzip | tee /tmp/job.gz | sha256sum; gunzip -c /tmp/job.gz | sha256sum' ;;
	fineline.keys=*) keys=${word#*=} ;;
	fineline.windows=*) windows=${word#*=} ;;
	fineline.window=*) window=${word#*=} ;;
	esac
done

# Kernel messages on the serial line would cut our own lines in two.
dmesg -n 1
read -r uptime _ </proc/uptime
echo "fineline-guest: ready mode=$mode cpus=$(nproc) uptime=$uptime"

case $mode in
poweroff) poweroff -f ;;
reboot) reboot -f ;;
memcheck)
	# Its lines are compared byte for byte: no echo, no CR before LF.
	stty -echo -onlcr
	memcheck -mib "$mib" -rest "$rest" -job "$job"
	poweroff -f
	;;
redis)
	stty -echo -onlcr
	ip link set lo up
	redis-server --save '' --appendonly no --bind 127.0.0.1 --logfile /tmp/redis.log &
	redisload -keys "$keys" -rounds 1
	for order in sequential random; do
		redisload -keys "$keys" -order $order &
		load=$!
		echo "track order=$order"
		fineline-guest track --pid "$(pidof redis-server)" --json --count-bytes --windows "$windows" --window "$window" 2>&1
		echo "track status=$?"
		kill $load
		wait $load
		[ $order = sequential ] || continue
		# The second order goes through the daemon.
		fineline-guest serve 2>/tmp/serve.log &
		daemon=$!
		while kill -0 $daemon && [ ! -S /run/fineline/track.sock ]; do sleep 0.1; done
	done
	echo "track order=own"
	start-stop-daemon -S -c nobody -x /bin/example 2>&1
	echo "track status=$?"
	echo "track order=foreign"
	cp /bin/fineline-guest /tmp/foreign # start-stop-daemon starts no program twice
	start-stop-daemon -S -c nobody -x /tmp/foreign -- track --pid "$(pidof redis-server)" 2>&1
	echo "track status=$?"
	cat /tmp/serve.log
	poweroff -f
	;;
shell)
	# Without echo busybox reads plain lines: no line editor, which asks the
	# terminal for its cursor and takes what a test types as the answer.
	stty -echo -onlcr
	while :; do setsid cttyhack sh; done
	;;
*)
	# PID 1 must not end, and job control needs a controlling terminal.
	while :; do setsid cttyhack sh; done
	;;
esac
