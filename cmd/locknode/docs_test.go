package main

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func TestExitCodesAndVariablesAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range []int{0, exitOther, exitUsage, exitUnavailable, exitOutput, exitNotAcquired, exitLost, exitNotExecuted, exitNotFound} {
		if !strings.Contains(string(text), "\n| "+strconv.Itoa(code)+" | ") {
			t.Errorf("exit code %d is in no table", code)
		}
	}
	help := (&app{}).root().Long
	for _, v := range regexp.MustCompile(`LOCKNODE_[A-Z_]+`).FindAllString(help, -1) {
		if !strings.Contains(string(text), v) && !strings.Contains(v, "LISTEN") && !strings.Contains(v, "NODE_ID") {
			t.Errorf("variable %s of the help is not in the document", v)
		}
	}
	for _, v := range []string{"LOCKNODE_ENDPOINTS", "LOCKNODE_CONNECT_TIMEOUT", "LOCKNODE_CONFIG", "LOCKNODE_DATA_DIR", "LOCKNODE_TLS_CA", "LOCKNODE_TLS_CERT", "LOCKNODE_TLS_KEY", "LOCKNODE_NAME", "LOCKNODE_FENCING_TOKEN", "LOCKNODE_TOKEN", "LOCKNODE_TOKEN_FILE", heldVariable} {
		if !strings.Contains(help, v) {
			t.Errorf("variable %s is not in the help", v)
		}
	}
}
