package gateway

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"github.com/tokenledger/tokenledger/events/disk"
)

// secretFile is a file with a token that can be read again.
type secretFile struct {
	name string // empty for none
	rule disk.SecretRule
	text atomic.Pointer[string]
}

// secret returns the token, empty for none.
func (f *secretFile) secret() string {
	if s := f.text.Load(); s != nil {
		return *s
	}
	return ""
}

// load reads the file. On an error the token stays.
func (f *secretFile) load() error {
	if f.name == "" {
		return nil
	}
	info, err := os.Stat(f.name)
	if err == nil {
		err = f.rule.Check(f.name, info)
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(f.name)
	}
	text := strings.TrimSpace(string(b))
	if err == nil && (text == "" || strings.ContainsAny(text, " \t\r\n")) {
		err = fmt.Errorf("%s does not hold one token", f.name)
	}
	if err != nil {
		return fmt.Errorf("audit-token-file: %w", err)
	}
	f.text.Store(&text)
	return nil
}
