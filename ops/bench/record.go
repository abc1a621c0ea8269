package bench

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/tokenledger/tokenledger/events"
)

// record is the record of a token in contenders that look up a digest. It has
// only the fields for the decision.
type record struct {
	expires int64 // Unix time, in seconds
	site    uint32
	live    bool
}

const recordLength = 16

// expiry is the expiry of every token of a population.
var expiry = end.Unix()

func (p *population) record(i int) record {
	return record{expires: expiry, site: uint32(site(i)), live: !p.revoked(i)}
}

func (r record) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(r.expires))
	b = binary.BigEndian.AppendUint32(b, r.site)
	state := uint32(0)
	if r.live {
		state = 1
	}
	return binary.BigEndian.AppendUint32(b, state)
}

var errRecord = errors.New("a record is not as long as it was written")

func parseRecord(b []byte) (record, error) {
	if len(b) != recordLength {
		return record{}, errRecord
	}
	return record{
		expires: int64(binary.BigEndian.Uint64(b)), site: binary.BigEndian.Uint32(b[8:]), live: b[15] == 1,
	}, nil
}

// allows decides by state, expiry and scope.
func (r record) allows(q query) bool {
	return r.live && time.Now().Unix() < r.expires && r.site == uint32(site(q.token))
}

// digestOf is the first step of each lookup. It rejects malformed secrets.
func digestOf(secret string) (events.Digest, bool) { return events.DefaultFormat.DigestOf(secret) }
