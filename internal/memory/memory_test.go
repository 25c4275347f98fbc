package memory

import "testing"

func TestLimitIsTheLeastOfGroupsAndMachine(t *testing.T) {
	const machine = "MemTotal:        8000000 kB\nMemFree: 1 kB\n"
	for what, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"nothing is known":  {nil, 0},
		"the machine":       {map[string]string{"/proc/meminfo": machine}, 8_000_000 << 10},
		"a container":       {map[string]string{"/proc/meminfo": machine, "/sys/fs/cgroup/memory.max": "367001600\n", "/proc/self/cgroup": "0::/\n"}, 367001600},
		"without a limit":   {map[string]string{"/proc/meminfo": machine, "/sys/fs/cgroup/memory.max": "max\n"}, 8_000_000 << 10},
		"a service":         {map[string]string{"/proc/meminfo": machine, "/proc/self/cgroup": "0::/system.slice/locknode.service\n", "/sys/fs/cgroup/system.slice/locknode.service/memory.max": "100000000"}, 100_000_000},
		"a group above it":  {map[string]string{"/proc/meminfo": machine, "/proc/self/cgroup": "0::/a/b\n", "/sys/fs/cgroup/a/memory.max": "50000000", "/sys/fs/cgroup/a/b/memory.max": "max"}, 50_000_000},
		"version 1":         {map[string]string{"/proc/meminfo": machine, "/proc/self/cgroup": "9:cpu,memory:/docker/x\n1:name=systemd:/y\n", "/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": "70000000"}, 70_000_000},
		"v1, no limit":      {map[string]string{"/proc/meminfo": machine, "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"}, 8_000_000 << 10},
		"files of nonsense": {map[string]string{"/proc/meminfo": "MemTotal: lots\n", "/proc/self/cgroup": "x\n:\n::\n", "/sys/fs/cgroup/memory.max": "-"}, 0},
	} {
		got, ok := limit(func(name string) string { return c.files[name] })
		if ok != (c.want != 0) || ok && got != c.want {
			t.Errorf("%s: limit %d, %v, want %d", what, got, ok, c.want)
		}
	}
}
