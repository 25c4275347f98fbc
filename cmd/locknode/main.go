package main

import (
	"io"
	"os"

	"google.golang.org/grpc/grpclog"
)

func main() {
	if code, hidden := hiddenMain(os.Args); hidden {
		os.Exit(code)
	}
	quietGRPC(os.LookupEnv)
	os.Exit(program{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, lookup: os.LookupEnv, environ: os.Environ}.run(os.Args[1:]))
}

// quietGRPC keeps grpc from writing to standard error by itself: a false node could have it
// do so as often as it likes, past the log. Whoever asks for these lines gets them.
func quietGRPC(lookup func(string) (string, bool)) {
	if level, ok := lookup("GRPC_GO_LOG_SEVERITY_LEVEL"); !ok || level == "" {
		grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	}
}
