"""Stock phrases for letters in several languages. They suit any message."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Letter:
    """The stock phrases of a language. {p} is a person, {s} their subject, {q} one of their sentences."""

    greeting: str
    greeting_to: str
    thanks: str
    thanks_for: str
    asked: str
    sentences: tuple[str, ...]
    closing: str
    quotes: tuple[str, str] = ("\u201c", "\u201d")


ENGLISH = Letter(
    "Hello,",
    "Hello {p},",
    "Thank you for your message.",
    "Thank you for your message about {s}.",
    "You asked: {q}",
    (
        "A colleague is looking into it and will write to you soon.",
        "We have read your message from the first line to the last.",
        "If anything has changed since you wrote, just answer this message.",
        "You will not have to explain it twice.",
        "If we need to know more, we will ask, and only once.",
    ),
    "Kind regards,\nThe team",
)
LETTERS = {
    "en": ENGLISH,
    "de": Letter(
        "Guten Tag,",
        "Guten Tag {p},",
        "vielen Dank f\u00fcr Ihre Nachricht.",
        "vielen Dank f\u00fcr Ihre Nachricht {s}.",
        "Sie fragen: {q}",
        (
            "Wir k\u00fcmmern uns darum und melden uns innerhalb von zwei Werktagen bei Ihnen.",
            "Wenn sich inzwischen etwas ge\u00e4ndert hat, antworten Sie einfach auf diese Nachricht.",
            "Sie m\u00fcssen Ihr Anliegen nicht noch einmal schildern.",
        ),
        "Mit freundlichen Gr\u00fc\u00dfen\nIhr Team",
        ("\u201e", "\u201c"),
    ),
    "fr": Letter(
        "Bonjour,",
        "Bonjour {p},",
        "Merci pour votre message.",
        "Merci pour votre message {s}.",
        "Vous \u00e9crivez : {q}",
        (
            "Nous nous en occupons et vous r\u00e9pondrons sous deux jours ouvr\u00e9s.",
            "Si la situation a chang\u00e9 entre-temps, il suffit de r\u00e9pondre \u00e0 ce message.",
            "Vous n\u2019aurez pas \u00e0 nous l\u2019expliquer une seconde fois.",
        ),
        "Cordialement,\nL\u2019\u00e9quipe",
        ("\u00ab\u00a0", "\u00a0\u00bb"),
    ),
    "es": Letter(
        "Hola:",
        "Hola, {p}:",
        "Gracias por su mensaje.",
        "Gracias por su mensaje {s}.",
        "Nos escribe: {q}",
        (
            "Ya lo estamos revisando y le responderemos en un plazo de dos d\u00edas laborables.",
            "Si algo ha cambiado mientras tanto, basta con responder a este mensaje.",
            "No tendr\u00e1 que explic\u00e1rnoslo otra vez.",
        ),
        "Un cordial saludo,\nEl equipo",
        ("\u00ab", "\u00bb"),
    ),
    "it": Letter(
        "Buongiorno,",
        "Buongiorno {p},",
        "grazie per il Suo messaggio.",
        "grazie per il Suo messaggio {s}.",
        "Ci scrive: {q}",
        (
            "Ce ne stiamo occupando e Le risponderemo entro due giorni lavorativi.",
            "Se nel frattempo qualcosa \u00e8 cambiato, basta rispondere a questo messaggio.",
            "Non dovr\u00e0 spiegarcelo una seconda volta.",
        ),
        "Cordiali saluti,\nIl team",
        ("\u00ab", "\u00bb"),
    ),
    "pt": Letter(
        "Ol\u00e1,",
        "Ol\u00e1, {p},",
        "Obrigado pela sua mensagem.",
        "Obrigado pela sua mensagem {s}.",
        "Escreveu-nos: {q}",
        (
            "J\u00e1 estamos a tratar do assunto e responderemos no prazo de dois dias \u00fateis.",
            "Se entretanto algo mudou, basta responder a esta mensagem.",
            "N\u00e3o ter\u00e1 de nos explicar tudo outra vez.",
        ),
        "Com os melhores cumprimentos,\nA equipa",
        ("\u00ab", "\u00bb"),
    ),
    "nl": Letter(
        "Hallo,",
        "Hallo {p},",
        "Bedankt voor uw bericht.",
        "Bedankt voor uw bericht {s}.",
        "U schrijft: {q}",
        (
            "We zijn ermee bezig en antwoorden u binnen twee werkdagen.",
            "Is er intussen iets veranderd, beantwoord dan gewoon dit bericht.",
            "U hoeft het niet nog eens uit te leggen.",
        ),
        "Met vriendelijke groet,\nHet team",
    ),
    "ja": Letter(
        "こんにちは。",
        "{p}様",
        "お問い合わせいただき、ありがとうございます。",
        "{s}のご連絡をいただき、ありがとうございます。",
        "{q}",
        (
            "担当者が確認のうえ、二営業日以内にご返信いたします。",
            "ご不明な点がございましたら、このメールにご返信ください。",
            "同じ内容を再度ご説明いただく必要はございません。",
        ),
        "どうぞよろしくお願いいたします。",
        ("「", "」"),
    ),
    "zh": Letter(
        "您好\uff01",
        "{p}\uff0c您好\uff01",
        "感谢您的来信。",
        "感谢您关于{s}的来信。",
        "{q}",
        (
            "我们正在处理\uff0c并将在两个工作日内回复您。",
            "如果情况有变\uff0c请直接回复此邮件。",
            "您无需再次说明。",
        ),
        "此致敬礼",
        ("「", "」"),
    ),
    "ar": Letter(
        "مرحبًا،",
        "مرحبًا {p}،",
        "شكرًا لرسالتكم.",
        "شكرًا لرسالتكم {s}.",
        "{q}",
        (
            "نحن نتابع الأمر وسنرد عليكم خلال يومي عمل.",
            "لأي استفسار آخر، يمكنكم الرد على هذه الرسالة.",
        ),
        "مع أطيب التحيات",
        ("\u00ab", "\u00bb"),
    ),
}
