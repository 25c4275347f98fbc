package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// tick is the unit of times in /proc/PID/stat: Linux shows them in hundredths of a second.
const tick = 10 * time.Millisecond

// cpuOf is how much CPU the processes have used since they were started, or -1 where
// /proc does not say it.
func cpuOf(pids []int) time.Duration {
	var sum time.Duration
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return -1
		}
		used, ok := cpuIn(stat)
		if !ok {
			return -1
		}
		sum += used
	}
	return sum
}

// cpuIn reads utime and stime, fields 14 and 15 (proc(5)). The second field is the name in
// parentheses, which may contain anything.
func cpuIn(stat []byte) (time.Duration, bool) {
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return 0, false
	}
	fields := bytes.Fields(stat[i+1:])
	if len(fields) < 13 {
		return 0, false
	}
	user, err1 := strconv.ParseInt(string(fields[11]), 10, 64)
	system, err2 := strconv.ParseInt(string(fields[12]), 10, 64)
	return time.Duration(user+system) * tick, err1 == nil && err2 == nil
}
