//go:build !linux

package raftlog

import (
	"os"
	"runtime"
)

// dirsSync is false where a folder cannot be synced.
const dirsSync = runtime.GOOS != "windows" && runtime.GOOS != "plan9"

func syncData(f *os.File) error { return f.Sync() }
