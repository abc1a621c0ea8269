package projector

import (
	"github.com/dgraph-io/badger/v4"

	"github.com/tokenledger/tokenledger/events"
)

// OpenRaw opens the Badger that is in an index's folder.
func OpenRaw(dir string) (*badger.DB, error) {
	return badger.Open(badgerOptions(Config{Dir: dir}.withDefaults()))
}

// Keys of an index.
var (
	CursorKey = []byte(keyCursor)
	PolicyKey = []byte(keyPolicy)
)

func DigestKey(d events.Digest) []byte      { return digestKey(d) }
func TokenKey(id events.TokenID) []byte     { return tokenKey(id) }
func AccountKey(id events.AccountID) []byte { return accountKey(id) }
func LineKey(line string) []byte            { return lineKey(line) }
func Seal(key, value []byte) []byte         { return seal(key, value) }

// SetReserve changes how much disk space has to stay free.
func (p *Projector) SetReserve(n uint64) { p.cfg.Reserve = n }
