"""Text that belongs to no task: article 1 of the Universal Declaration of Human Rights in several scripts, and what people type beside words.

On it a pruned tokenizer is compared with the whole one: nothing that could be spelled may become [UNK].
"""

from __future__ import annotations

TEXTS = (
    "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience and should act towards one another in a spirit of brotherhood.",
    "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen.",
    "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de conscience et doivent agir les uns envers les autres dans un esprit de fraternité.",
    "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y conciencia, deben comportarse fraternalmente los unos con los otros.",
    "Todos os seres humanos nascem livres e iguais em dignidade e em direitos.",
    "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw.",
    "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar.",
    "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền lợi.",
    "Все люди рождаются свободными и равными в своем достоинстве и правах.",
    "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق.",
    "כל בני אדם נולדו בני חורין ושווים בערכם ובזכויותיהם.",
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "人人生而自由，在尊严和权利上一律平等。",
    "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "The quick brown fox jumps over the lazy dog; SPHINX OF BLACK QUARTZ, JUDGE MY VOW!",
    "https://example.org/a?b=1&c=2 user@example.org +44 (0)20 7946 0958 €12.50 £3 $4 50% #1 @me 3/4 2026-01-31T12:00",
    'if (x != y) { return "z"; } // \\n <tag/> [0] ~ ^ | ` _ *',
    "😀 👍🏽 ❤️ → ∞ ≤ ½ ² © ™ … “quoted” ‘so’ – —",
    "supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis Xqzvw",
)
