package node

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/tokenledger/tokenledger/events"
)

// loadSalts reads the salts of imported tokens. The error contains nothing of the
// file.
func (c Config) loadSalts() ([]events.MatomoSalt, error) {
	if c.MatomoSaltFile == "" {
		return nil, nil
	}
	salts, err := c.readSalts(c.MatomoSaltFile)
	if err != nil {
		return nil, fmt.Errorf("matomo-salt-file %s: %w", c.MatomoSaltFile, err)
	}
	return salts, nil
}

func (c Config) readSalts(path string) ([]events.MatomoSalt, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a file")
	}
	if err := c.secretRule().Check(path, info); err != nil {
		return nil, fmt.Errorf("%w: set mode 0600", err)
	}
	const limit = 16 << 10
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	defer clear(data)
	if len(data) > limit {
		return nil, fmt.Errorf("it has more than %d bytes", limit)
	}
	return events.ParseMatomoSalts(data)
}
