package signin

import (
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// minUncommon is how many characters of a password must be outside of common
// pieces.
const minUncommon = 8

// commonWords are words in bad passwords, in lower case and without digits for
// letters. Variants in case, with digits for letters, in another order or with
// separators are found too.
const commonWords = `
password passwort passwd pass motdepasse contrasena senha parola haslo salasana wachtwoord losenord
passphrase secret geheim changeme changeit default temporary temp test testing tester guest demo sample example
admin administrator root user username login logon signin welcome willkommen bienvenue access system master
letmein openup opensesame sesame please trustno iloveyou loveyou iloveu lovely love lover forever always
monkey dragon tiger lion eagle falcon shark wolf panther bear horse rabbit kitten puppy dolphin butterfly
football baseball basketball soccer hockey golf tennis rugby racing liverpool arsenal chelsea barcelona
realmadrid juventus bayern yankees cowboys lakers steelers packers
superman batman spiderman ironman starwars startrek pokemon naruto minecraft fortnite matrix
sunshine moonlight rainbow flower summer winter spring autumn sommer winter
january february march april june july august september october november december
monday tuesday wednesday thursday friday saturday sunday
michael michelle jessica jennifer ashley daniel andrew joshua matthew robert thomas charlie jordan hunter
nicole amanda anthony william george harley ranger buster pepper ginger maggie cookie chocolate banana cheese
princess prince queen king angel babygirl baby honey sweet beautiful family mother father sister brother
computer internet server database network security private private company office business windows linux
microsoft google facebook apple amazon twitter samsung android iphone
america england london paris berlin germany france canada mexico brazil india china japan moscow
mustang ferrari porsche mercedes corvette camaro yamaha honda toyota
killer shadow phoenix thunder lightning freedom whatever nothing something money dollar diamond silver golden
blink jesus christ heaven lucky blessed peace hello hallo hola bonjour goodbye
abc abcd abcdef xyz aaa qaz wsx edc rfv tgb yhn ujm
matomo piwik analytics token tokens ledger
correcthorsebatterystaple thequickbrownfox loremipsum tobeornottobe
the and my is for you me we of in it this that new old one two your
`

// keyboardRows are runs of keys that people type in order.
var keyboardRows = []string{
	"abcdefghijklmnopqrstuvwxyz", "01234567890", "1234567890",
	"qwertyuiop", "asdfghjkl", "zxcvbnm", // QWERTY
	"qwertzuiop", "yxcvbnm", "azertyuiop", "qsdfghjklm", "wxcvbn", // QWERTZ, AZERTY
	"1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p", "1q2w3e4r5t6y7u8i9o0p", "q1w2e3r4t5y6u7i8o9p0", "qazwsxedcrfvtgbyhnujmikolp",
	"!@#$%^&*()", "147258369", "789456123",
}

// pieces is the set of common pieces, some thousand: the common words, all keyboard
// walks of four to twelve keys, both also reversed, and the years.
var pieces = sync.OnceValue(func() map[string]bool {
	const shortWalk, longWalk, firstYear, lastYear = 4, 12, 1900, 2099
	set := map[string]bool{}
	for _, w := range strings.Fields(commonWords) {
		set[w], set[reversed(w)] = true, true
	}
	for _, row := range keyboardRows {
		for n := shortWalk; n <= longWalk; n++ {
			for i := 0; i+n <= len(row); i++ {
				walk := row[i : i+n]
				set[walk], set[reversed(walk)] = true, true
			}
		}
	}
	for year := firstYear; year <= lastYear; year++ {
		set[digits(year)] = true
	}
	return set
})

// maxPieceLength limits the search.
const maxPieceLength = 26

// uncommon returns how many characters of a folded text are outside of common
// pieces, for the choice of pieces that covers the most. The login counts as one.
func uncommon(folded, login string) int {
	least := utf8.RuneCountInString(folded)
	for _, s := range []string{folded, unleet(folded), strings.ReplaceAll(unleet(folded), "i", "l")} {
		least = min(least, uncovered(s, login), uncovered(lettersAndDigits(s), login))
	}
	return least
}

// uncovered is uncommon for one spelling.
func uncovered(s, login string) int {
	runes := []rune(s)
	best := make([]int, len(runes)+1) // uncovered characters of the first i
	for i := 1; i <= len(runes); i++ {
		best[i] = best[i-1] + 1
		// A third equal character in a row adds nothing.
		if i >= 3 && runes[i-1] == runes[i-2] && runes[i-1] == runes[i-3] {
			best[i] = best[i-1]
		}
		for n := 2; n <= min(i, maxPieceLength); n++ {
			piece := string(runes[i-n : i])
			if pieces()[piece] || login != "" && piece == login {
				best[i] = min(best[i], best[i-n])
			}
		}
	}
	return best[len(runes)]
}

// lettersAndDigits removes separators.
func lettersAndDigits(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return -1
		}
		return r
	}, s)
}

// leet replaces the digits and signs that stand for letters.
var leet = strings.NewReplacer(
	"0",
	"o",
	"1",
	"i",
	"3",
	"e",
	"4",
	"a",
	"5",
	"s",
	"7",
	"t",
	"8",
	"b",
	"@",
	"a",
	"$",
	"s",
	"!",
	"i",
	"€",
	"e",
)

func unleet(s string) string { return leet.Replace(s) }

func reversed(s string) string {
	b := []byte(s) // the pieces are ASCII
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	return string(b)
}

func digits(n int) string {
	return string([]byte{byte('0' + n/1000%10), byte('0' + n/100%10), byte('0' + n/10%10), byte('0' + n%10)})
}
