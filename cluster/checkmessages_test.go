package cluster

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/locknode/locknode/internal/proof/fuzz"
)

const hugeExtension = "\xc9\xff\xff\xff\xff\xff" // of the kind that is a time

func TestExtensionsAreRefusedWhereverTheyStand(t *testing.T) {
	dead := "\x05\x82\xa4Node\xa1n\xa1x"
	for name, packet := range map[string]string{
		"alone":               dead + hugeExtension,
		"with a checksum":     "\x0c\x00\x00\x00\x00" + dead + hugeExtension,
		"with a label":        "\xf4\x05label" + dead + hugeExtension,
		"second of two":       "\x07\x02\x00\x01\x00\x11\x05" + dead + hugeExtension,
		"in an array":         "\x05\x81\xa1x\x93\x01\xcd\x01\x02" + hugeExtension,
		"after a long string": "\x05\x82\xd9\x02ab\xc5\x00\x03abc\xca\x00\x00\x00\x00" + hugeExtension,
		"short":               "\x05\x81\xa1x\xd4\x00\x00",
		"packed":              "\x09\x82\xa4Algo\x00\xa3Buf\xa0",
		"packed among others": "\x07\x01\x00\x01\x09",
		"for users":           "\x08abc",
		"nothing":             "",
	} {
		if err := checkPacket([]byte(packet)); err == nil {
			t.Errorf("%s: %q was taken", name, packet)
		}
	}
	meta, err := fullMeta().encode()
	if err != nil {
		t.Fatal(err)
	}
	alive := string(alivePacket(meta))
	for name, packet := range map[string]string{
		"alive": alive, "with a checksum": "\x0c\x00\x00\x00\x00" + alive, "with a label": "\xf4\x05label" + alive,
		"looks like one":  "\x05\x82\xa4Node\xc4\x06" + hugeExtension + "\xa1x\xa6" + hugeExtension,
		"two in one":      "\x07\x02\x00" + string([]byte{byte(len(dead) + 1)}) + "\x00" + string([]byte{byte(len(dead) + 1)}) + dead + "y" + dead + "y",
		"numbers, floats": "\x00\x84\xcc\xc9\xcd\xc9\xc9\xce\xc9\xc9\xc9\xc9\xcf\xc9\xc9\xc9\xc9\xc9\xc9\xc9\xc9\xcb\xc9\xc9\xc9\xc9\xc9\xc9\xc9\xc9\xd0\xc9\xd1\xc9\xc9\xff",
	} {
		if err := checkPacket([]byte(packet)); err != nil {
			t.Errorf("%s: %q was refused: %v", name, packet, err)
		}
	}
}

func TestStreamsAreLookedAtWhereverTheyAreCut(t *testing.T) {
	meta, err := fullMeta().encode()
	if err != nil {
		t.Fatal(err)
	}
	good := "\xf4\x05label" + string(pushPull("node-1", meta, 0))
	for _, c := range []struct {
		name, data string
		ok         bool
	}{
		{"good", good, true},
		{"extension", good + hugeExtension, false},
		{"many nodes", "\x06\x83\xa5Nodes\xce\x00\x0f\xff\xff\xacUserStateLen\x00\xa4Join\xc3", false},
		{"many nodes at the end", "\x06\x82\xa4Join\xc3\xa5Nodes\xce\x00\x0f\xff\xff", false},
		{"many nodes behind a list", "\x06\x82\xa1x\x92\x01\x01\xa5Nodes\xce\x00\x0f\xff\xff", false},
		{"much user state", "\x06\x82\xa5Nodes\x01\xacUserStateLen\xce\x01\x00\x00\x00", false},
		{"no header", "\x06\xde\x00\x01\xa5Nodes\xce\x00\x0f\xff\xff", false},
		{"numbers behind the header", "\x06\x81\xa5Nodes\x01\x81\xabIncarnation\xce\x00\x0f\xff\xff", true},
		{"absurd numbers behind the header", "\x06\x81\xa5Nodes\x01\x81\xabIncarnation\xce\xff\xff\xff\xff", false},
		{"packed", "\x09\x80", false},
		{"encrypted", "\x0a\x00", false},
	} {
		for step := 1; step <= len(c.data); step += 1 + step/3 {
			conn := &plainConn{tell: func(error) {}}
			var err error
			for at := 0; at < len(c.data) && err == nil; at += step {
				err = conn.look([]byte(c.data[at:min(at+step, len(c.data))]))
			}
			if (err == nil) != c.ok {
				t.Errorf("%s in pieces of %d: %v", c.name, step, err)
			}
		}
	}
}

// Some packets of 45 bytes took gigabytes.
func TestExtensionTakesNoMemory(t *testing.T) {
	l := startListener(t)
	defer crash(l.Cluster)
	for range 8 {
		l.packet([]byte("\x05\x81\xa1x" + hugeExtension))
		l.stream([]byte("\x06\x81\xa1x" + hugeExtension))
		l.stream([]byte("\x06\x83\xa5Nodes\xce\x00\x0f\xff\xff\xacUserStateLen\x00\xa4Join\xc3"))
	}
	if n := fuzz.Allocated(func() { l.settle(t) }); n > gossipBound {
		t.Errorf("%d bytes allocated", n)
	}
	status, err := os.ReadFile("/proc/self/status")
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	if kib, _ := strconv.Atoi(strings.Fields(peak)[0]); kib > 1<<20 {
		t.Errorf("the process has taken %d MiB", kib>>10)
	}
}
