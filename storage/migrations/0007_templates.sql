-- Template messages: words that WhatsApp approved beforehand, for platforms of its official API.
alter table outbox drop constraint outbox_kind_check;
alter table outbox add constraint outbox_kind_check
    check (kind in ('text', 'image', 'document', 'video', 'audio', 'template'));
