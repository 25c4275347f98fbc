package address

import (
	"strings"
	"testing"
)

func TestHostIsWhatOthersDial(t *testing.T) {
	for s, want := range map[string]string{
		"a.example": "a.example", "a.example.": "a.example.", "node-1": "node-1", "locknode_1.svc": "locknode_1.svc", "localhost": "localhost",
		"10.0.0.1": "10.0.0.1", "127.0.0.1": "127.0.0.1", "fd77::1": "fd77::1", "[fd77::1]": "fd77::1", "::1": "::1", "1a": "1a",
	} {
		if got, err := Host(s); err != nil || got != want {
			t.Errorf("Host(%q) = %q, %v, want %q", s, got, err, want)
		}
	}
	for s, want := range map[string]string{
		"10.0.0.1:7400":          "must be a host without a port, such as 10.0.0.1: the port 7400 belongs to",
		"a.example:7400":         "must be a host without a port, such as a.example",
		"[fd77::1]:7400":         "must be a host without a port, such as fd77::1",
		"a:b:c":                  "a host without a port",
		"0.0.0.0":                "others cannot dial it",
		"::":                     "others cannot dial it",
		"[::]":                   "others cannot dial it",
		"::ffff:0.0.0.0":         "others cannot dial it",
		"224.0.0.1":              "no address of one machine",
		"255.255.255.255":        "no address of one machine",
		"ff02::1":                "no address of one machine",
		"fe80::1%eth0":           "without a zone",
		"[10.0.0.1]":             "must have an IPv6 address in the brackets",
		"[fd77::1":               "without a port",
		"10.0.0.256":             "must be a host: a name, or an IP address",
		"10.0.1":                 "must be a host",
		"a b":                    "must be a host",
		"":                       "must be a host",
		".":                      "must be a host",
		"-a":                     "must be a host",
		"http://a":               "without a port",
		"a/b":                    "must be a host",
		strings.Repeat("a", 254): "must be a host",
	} {
		if got, err := Host(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Host(%q) = %q, %v, want an error with %q", s, got, err, want)
		}
	}
}

func TestDialWantsAHostAndAPort(t *testing.T) {
	for _, s := range []string{"a.example:7403", "10.0.0.1:1", "[fd77::1]:65535", "localhost:7403"} {
		if err := Dial(s); err != nil {
			t.Errorf("Dial(%q) = %v", s, err)
		}
	}
	for _, s := range []string{"a.example", ":7403", "a:0", "a:65536", "a:x", "a:", "0.0.0.0:7403", "[::]:7403", "fd77::1:7403", "[a]:1", "a b:1", "", "a:1:2"} {
		if err := Dial(s); err == nil {
			t.Errorf("Dial(%q) is taken", s)
		}
	}
}

func FuzzHostIsTakenAgain(f *testing.F) {
	for _, s := range []string{"a.example", "[fd77::1]", "10.0.0.1:7400", "::", "."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, err := Host(s)
		if err != nil {
			return
		}
		if again, err := Host(host); err != nil || again != host {
			t.Errorf("Host(%q) = %q, and of that %q, %v", s, host, again, err)
		}
	})
}
