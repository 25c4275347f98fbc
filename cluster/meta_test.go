package cluster

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func fullMeta() Meta {
	return Meta{
		NodeID: "node-1", ClusterID: "0123456789abcdef0123456789abcdef",
		API: "10.0.0.1:7400", HTTP: "10.0.0.1:7401", Raft: "10.0.0.1:7402",
		Version: "1.2.3-rc.1", Zone: "eu-west-1a", Nonvoter: true, Formed: true, Leaving: true, Expect: 5,
		Intent: list("a", "b").Hash(), Promise: list("a", "b").Hash(),
	}
}

func TestMetaSurvivesEncoding(t *testing.T) {
	tests := map[string]Meta{
		"everything":        fullMeta(),
		"only an ID":        {NodeID: "n"},
		"other HTTP host":   {NodeID: "n", API: "a:1", HTTP: "b:2", Raft: "a:3"},
		"other Raft host":   {NodeID: "n", API: "a:1", HTTP: "a:2", Raft: "b:3"},
		"no HTTP":           {NodeID: "n", API: "a:1", Raft: "a:3"},
		"port without host": {NodeID: "n", API: "a:1", HTTP: ":2", Raft: ":3"},
		"no API":            {NodeID: "n", HTTP: ":2", Raft: "b"},
		"IPv6":              {NodeID: "n", API: "[::1]:1", HTTP: "[::1]:2", Raft: "[::2]:3"},
		"not a port":        {NodeID: "n", API: "a", HTTP: "a", Raft: "a:"},
		"unicode":           {NodeID: "knoten-ä", Zone: "北"},
	}
	for name, m := range tests {
		t.Run(name, func(t *testing.T) {
			buf, err := m.encode()
			if err != nil {
				t.Fatal(err)
			}
			got, err := decodeMeta(buf)
			if err != nil || got != m {
				t.Errorf("decode(encode(m)) = %+v, %v; want %+v", got, err, m)
			}
		})
	}
}

func TestAnyMetaSurvivesEncoding(t *testing.T) {
	text := rapid.StringMatching(`[a-z0-9:.\[\]-]{0,30}`)
	hash := rapid.Custom(func(t *rapid.T) string {
		return list(rapid.SliceOfN(rapid.StringMatching(`[a-z]{1,3}`), 0, 3).Draw(t, "founders")...).Hash()
	})
	rapid.Check(t, func(t *rapid.T) {
		m := Meta{
			NodeID: rapid.StringMatching(`[a-z0-9-]{1,64}`).Draw(t, "id"), ClusterID: text.Draw(t, "cluster"),
			API: text.Draw(t, "api"), HTTP: text.Draw(t, "http"), Raft: text.Draw(t, "raft"),
			Version: text.Draw(t, "version"), Zone: text.Draw(t, "zone"),
			Nonvoter: rapid.Bool().Draw(t, "nonvoter"), Formed: rapid.Bool().Draw(t, "formed"), Leaving: rapid.Bool().Draw(t, "leaving"),
			Expect: rapid.IntRange(0, maxExpect).Draw(t, "expect"), Intent: hash.Draw(t, "intent"), Promise: hash.Draw(t, "promise"),
		}
		buf, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decodeMeta(buf); err != nil || got != m {
			t.Fatalf("decode(encode(m)) = %+v, %v; want %+v", got, err, m)
		}
	})
}

// Hosts may have 253 bytes, IDs 128: the realistic worst case has to fit.
func TestLongHostNameFitsOnce(t *testing.T) {
	host := strings.Repeat("h", 253)
	m := fullMeta()
	m.API, m.HTTP, m.Raft = host+":7400", host+":7401", host+":7402"
	buf, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", len(buf))
}

func TestUnfitMetaIsRefused(t *testing.T) {
	tests := map[string]func(*Meta){
		"no ID":          func(m *Meta) { m.NodeID = "" },
		"long ID":        func(m *Meta) { m.NodeID = strings.Repeat("x", maxID+1) },
		"long cluster":   func(m *Meta) { m.ClusterID = strings.Repeat("x", maxID+1) },
		"control":        func(m *Meta) { m.Zone = "a\x1b[2J" },
		"no UTF-8":       func(m *Meta) { m.Version = "\xff" },
		"expect < 0":     func(m *Meta) { m.Expect = -1 },
		"expect too big": func(m *Meta) { m.Expect = maxExpect + 1 },
		"short hash":     func(m *Meta) { m.Promise = "00" },
		"no hash":        func(m *Meta) { m.Intent = strings.Repeat("g", 32) },
		"big letters":    func(m *Meta) { m.Intent = strings.Repeat("A", 32) },
		"too long": func(m *Meta) {
			m.API, m.HTTP, m.Raft = strings.Repeat("a", 200), strings.Repeat("b", 200), strings.Repeat("c", 200)
		},
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			m := fullMeta()
			spoil(&m)
			if buf, err := m.encode(); err == nil {
				t.Errorf("encode took %+v as %d bytes", m, len(buf))
			}
		})
	}
}

func TestDamagedMetaIsRefused(t *testing.T) {
	whole, err := fullMeta().encode()
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) {
		if m, err := decodeMeta(whole[:n]); err == nil {
			t.Errorf("the first %d of %d bytes were taken as %+v", n, len(whole), m)
		}
	}
	other := bytes.Clone(whole)
	other[0]++
	if _, err := decodeMeta(other); err == nil || !strings.Contains(err.Error(), "version: is 2") {
		t.Errorf("a later layout: %v", err)
	}
	if _, err := decodeMeta(make([]byte, MaxMeta+1)); err == nil {
		t.Error("an oversized meta was taken")
	}
}

// A later version 1 appends fields; this one must go on understanding it.
func TestMetaWithMoreAtTheEndIsUnderstood(t *testing.T) {
	buf, err := fullMeta().encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeMeta(append(buf, "\x05later"...))
	if err != nil || got != fullMeta() {
		t.Errorf("decode = %+v, %v", got, err)
	}
}

func FuzzMeta(f *testing.F) {
	for _, m := range []Meta{fullMeta(), {NodeID: "n"}, {NodeID: "n", API: "a:1", HTTP: "a:2", Raft: "b:3"}} {
		buf, err := m.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(buf)
		f.Add(buf[:len(buf)/2])
	}
	f.Add([]byte{})
	f.Add([]byte{metaVersion, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Add([]byte{metaVersion, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decodeMeta(data)
		if err != nil {
			return
		}
		buf, err := m.encode()
		if err != nil {
			// Only one thing may be wrong with a decoded meta: it may have written
			// a host once that encode writes in full.
			if len(data) < MaxMeta/2 {
				t.Fatalf("decoded %+v but cannot encode it: %v", m, err)
			}
			return
		}
		if again, err := decodeMeta(buf); err != nil || again != m {
			t.Fatalf("decode(encode(m)) = %+v, %v; want %+v", again, err, m)
		}
	})
}
