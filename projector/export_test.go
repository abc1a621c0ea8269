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
func ShardKey(shard string) []byte          { return shardKey(shard) }
func Seal(key, value []byte) []byte         { return seal(key, value) }

// SetReserve changes how much disk space has to stay free.
func (p *Projector) SetReserve(n uint64) { p.cfg.Reserve = n }

// Recount reads the whole index and returns its digest and how many records it
// holds, by hand.
func (p *Projector) Recount() (d events.IndexDigest, records uint64, err error) {
	err = p.db.View(func(tx *badger.Txn) error {
		it := tx.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			key := it.Item().KeyCopy(nil)
			sealed, err := it.Item().ValueCopy(nil)
			if err != nil {
				return err
			}
			if string(key) != keyCursor {
				d += events.IndexDigest(checkValue(key, sealed[:len(sealed)-8]))
				records++
			}
		}
		return nil
	})
	return d, records, err
}

// Dir returns the index's folder.
func (p *Projector) Dir() string { return p.cfg.Dir }

// Raw returns the Badger behind an index.
func (p *Projector) Raw() *badger.DB { return p.db }

// SetScrubRate changes how many bytes a second a scrub reads.
func (p *Projector) SetScrubRate(n int) { p.cfg.ScrubRate = n }
